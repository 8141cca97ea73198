//! Keys that vouch for bundles, in files.

use std::{fs, path::Path};

use crate::{
    bundle::sign::SigningKey,
    cli::{Failure, failure, output},
    private_file,
};

/// Reads a private key.
pub fn read(path: &Path) -> Result<SigningKey, Failure> {
    let bytes = private_file::read(path).map_err(|e| Failure::new(failure::REFUSED, e.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    SigningKey::from_pem(&text).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

/// Makes a pair: the private key in `path`, the public one in `path`.pub.
pub fn generate(path: &Path) -> Result<(), Failure> {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    if Path::new(&public).exists() {
        return Err(Failure::usage(format!("{} exists; name another file", Path::new(&public).display())));
    }
    let key = SigningKey::generate();
    private_file::create(path, key.to_pem().as_bytes()).map_err(|e| Failure::usage(e.to_string()))?;
    fs::write(&public, key.public().to_pem())
        .map_err(|e| Failure::usage(format!("{}: {e}; remove {} too", Path::new(&public).display(), path.display())))?;
    output::print(&key.public().to_pem())?;
    output::say(&format!(
        "rk: `rk bundle push --sign {0}` signs with it; agents with --require-signed {0}.pub take nothing else",
        path.display()
    ));
    Ok(())
}
