//! Streams to services.

use super::{Client, ClientError};
use crate::{
    api::{
        ApiError, Code, SERVICE_PROTOCOL,
        service::{MAX_OPEN, OPEN, OpenService},
    },
    service::{Budget, Channel, Ending, opened},
    tagged::TaggedWriter,
};

impl Client {
    /// Opens a stream to a service. That no such agent or service exists is told by the stream's outcome, and is not an error
    /// of this call. `budget` is what all windows of this process may grow by.
    pub async fn open_service(&self, request: &OpenService, budget: &Budget) -> Result<(Channel, Ending), ClientError> {
        let text = serde_json::to_vec(request).map_err(|e| self.protocol(e))?;
        if text.len() > MAX_OPEN {
            let message = format!("a request of {} bytes is above the limit of {MAX_OPEN}", text.len());
            return Err(ApiError::new(Code::TooLarge, message).into());
        }
        let open = async {
            let stream = self.upgrade("/v1/services", SERVICE_PROTOCOL).await?;
            let (read, mut write) = tokio::io::split(stream);
            TaggedWriter::new(&mut write).write(OPEN, &text).await.map_err(|e| self.broken(e))?;
            Ok(opened(read, write, budget))
        };
        self.within(self.timeout, open).await
    }
}
