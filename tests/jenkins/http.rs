//! As much HTTP as it takes to drive a Hudson: one request, one connection, one answer.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long Hudson may be silent. Its script console compiles each script.
const SILENCE: Duration = Duration::from_secs(120);

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request to a port of this machine.
pub fn send(port: u16, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Answer, String> {
    let answer = (|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{kind}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })();
    let answer = answer.map_err(|e| format!("{method} {path}: {e}"))?;
    let end =
        answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| format!("{method} {path}: no head"))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer { status: status.ok_or(head)?, body: answer[end + 4..].to_vec() })
}

/// A form with one field.
pub fn form(name: &str, value: &str) -> Vec<u8> {
    let mut form = format!("{name}=");
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => form.push(char::from(byte)),
            _ => form.push_str(&format!("%{byte:02X}")),
        }
    }
    form.into_bytes()
}

/// The kind of [`form`].
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The kind of [`upload`].
pub const UPLOAD: &str = "multipart/form-data; boundary=rk-boundary-7f3a";

/// What a browser sends for a build with a file as its parameter `blob`.
pub fn upload(file: &[u8]) -> Vec<u8> {
    let part = |head: &str, body: &[u8]| {
        let head = format!("--rk-boundary-7f3a\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        [head.as_bytes(), body, b"\r\n"].concat()
    };
    let json = br#"{"parameter":[{"name":"blob","file":"file0"}]}"#;
    [
        part("name=\"name\"", b"blob"),
        part("name=\"file0\"; filename=\"blob\"\r\nContent-Type: application/octet-stream", file),
        part("name=\"json\"", json),
        b"--rk-boundary-7f3a--\r\n".to_vec(),
    ]
    .concat()
}
