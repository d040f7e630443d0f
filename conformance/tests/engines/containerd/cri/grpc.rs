//! As much of gRPC as one question and one answer need: HTTP/2 on a unix
//! socket, a prefix of five bytes, and the status in the trailers.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::HeaderMap;
use prost::Message;
use tokio::net::UnixStream;

/// A service of containerd; each call has a connection of its own.
pub(super) struct Client {
    socket: PathBuf,
}

/// What a call failed with.
#[derive(Debug)]
pub(super) struct Status {
    /// gRPC's number: 4 is a deadline, 5 not found.
    pub(super) code: i32,
    pub(super) message: String,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Calls a method of `runtime.v1.RuntimeService`.
    pub(super) fn call<Answer: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Answer, Status> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a tokio runtime");
        let body = runtime
            .block_on(self.exchange(method, request.encode_to_vec()))
            .unwrap_or_else(|error| panic!("{method}: {error}"))?;
        Ok(Answer::decode(body.as_slice()).expect("an answer of the API"))
    }

    async fn exchange(
        &self,
        method: &str,
        message: Vec<u8>,
    ) -> anyhow::Result<Result<Vec<u8>, Status>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = http::Request::post(format!(
            "http://localhost/runtime.v1.RuntimeService/{method}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
        let (response, mut sending) = client.ready().await?.send_request(request, false)?;
        sending.send_data(frame(&message), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            bytes.extend_from_slice(&part);
        }
        // An answer without a body has its status at its head.
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        Ok(status(&trailers).map_or_else(|| Ok(bytes.split_off(5)), Err))
    }
}

/// Not compressed, so long, and the message.
fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a short message");
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    frame.into()
}

fn status(trailers: &HeaderMap) -> Option<Status> {
    let text = |name| {
        let value = trailers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let code = text("grpc-status").parse().expect("a gRPC status");
    (code != 0).then(|| Status {
        code,
        message: text("grpc-message"),
    })
}
