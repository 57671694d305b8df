//! A client that says exactly the bytes it is told to, right or wrong, over TLS to the gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kustody::core::wire::websocket::{Decoder, MAX_MESSAGE, Message, Side};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::stage::Stage;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The mask of every frame.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A connection to the gateway, as the agent.
pub(super) struct Raw {
    io: StreamOwned<ClientConnection, TcpStream>,
    host: String,
    token: String,
}

impl Raw {
    pub(super) fn connect(stage: &Stage) -> anyhow::Result<Raw> {
        let host = stage.kustody.gateway.trim_start_matches("https://").trim_end_matches('/').to_owned();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(stage.dir.join("kustody-ca.crt"))? {
            roots.add(certificate?)?;
        }
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = host.split(':').next().unwrap_or_default().to_owned();
        let tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
        let tcp = TcpStream::connect(&host)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let kubeconfig = std::fs::read_to_string(&stage.people.agent)?;
        let token = kubeconfig.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).context("no token")?;
        Ok(Raw { io: StreamOwned::new(tls, tcp), host, token: token.to_owned() })
    }

    /// Writes bytes as they are.
    pub(super) fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.io.write_all(bytes)?;
        self.io.flush().map_err(Into::into)
    }

    /// A request line and headers; `more` comes in the same write.
    pub(super) fn ask(&mut self, line: &str, headers: &[&str], more: &[u8]) -> anyhow::Result<()> {
        let mut head = format!("{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n", self.host, self.token);
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(more);
        self.say(&bytes)
    }

    /// The status and head of the answer, and what came of its body together with it.
    pub(super) fn answer(&mut self) -> anyhow::Result<(u16, String)> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        let started = Instant::now();
        loop {
            let read = self.io.read(&mut buffer).context("no answer")?;
            all.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&all).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                if status == 101 || read == 0 || length.is_none_or(|length| body.len() >= length) {
                    return Ok((status, text));
                }
            }
            ensure!(read > 0 && started.elapsed() < PATIENCE, "the answer is cut off: {text}");
        }
    }

    /// Switches over and reads messages, until the other side closes or there were so many.
    pub(super) fn messages(&mut self, most: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        let mut decoder = Decoder::new(Side::Server, MAX_MESSAGE);
        let head = loop {
            let read = self.io.read(&mut buffer).context("no answer")?;
            decoder.push(&buffer[..read]);
            let bytes = decoder.buffer();
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break bytes.split_to(end + 4);
            }
            ensure!(read > 0, "the answer is cut off: {}", String::from_utf8_lossy(bytes));
        };
        ensure!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}{}",
            String::from_utf8_lossy(&head),
            String::from_utf8_lossy(decoder.buffer())
        );
        while all.len() < most {
            match decoder.next_message()? {
                Some(Message::Data(bytes)) => all.push(bytes.to_vec()),
                Some(Message::Close { .. }) => break,
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                None => {
                    let read = self.io.read(&mut buffer).context("no message")?;
                    ensure!(read > 0, "the connection ended without a close frame");
                    decoder.push(&buffer[..read]);
                }
            }
        }
        Ok(all)
    }

    /// Reads until the other side has ended the connection.
    pub(super) fn until_it_ends(&mut self) -> anyhow::Result<Vec<u8>> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.io.read(&mut buffer) {
                Ok(0) => return Ok(all),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    anyhow::bail!("the connection goes on after {} bytes", all.len())
                }
                Err(_) => return Ok(all),
            }
        }
    }
}

/// A WebSocket frame: its first byte (FIN, RSV, opcode) and payload, with the length in its shortest form.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&masked(payload));
    out
}

/// One whose length is written as these eight bytes.
pub(super) fn frame_of_length(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, 0x80 | 127];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&masked(payload));
    out
}

/// One without a mask.
pub(super) fn bare_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, payload.len() as u8];
    out.extend_from_slice(payload);
    out
}

fn masked(payload: &[u8]) -> Vec<u8> {
    let mut out = KEY.to_vec();
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}
