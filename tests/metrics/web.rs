//! A client of HTTP on blocking sockets, for one answer after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that stays.
pub struct Web {
    stream: BufReader<TcpStream>,
    host: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: String,
}

impl Web {
    pub fn connect(address: &str) -> Web {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Web {
            stream: BufReader::new(stream),
            host: address.to_owned(),
        }
    }

    /// Asks for a path.
    pub fn get(&mut self, path: &str) -> Answer {
        self.ask(path);
        self.answer().expect("an answer")
    }

    pub fn ask(&mut self, path: &str) {
        let host = &self.host;
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes());
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next answer; `None` when the other side has closed.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => headers.push(line.to_owned()),
            }
        }
        let status = headers.remove(0).split(' ').nth(1)?.parse().ok()?;
        let length = headers.iter().find_map(|line| line.strip_prefix("Content-Length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        self.stream.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).ok()?;
        Some(Answer { status, headers, body })
    }

    /// Whether the other side closes without another word.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest.is_empty()
    }
}
