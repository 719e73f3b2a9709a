//! Peers that do not keep to the rules: hand-made frames over plain TCP, in a thread of their own.

use super::World;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use syncline::conn::{Event, Machine};
use syncline::model::limits::PREAUTH_FRAME_BYTES_MAX;
use syncline::model::{Fault, RelPath, Rights, Secret, ShareName};
use syncline::node::{Client, ClientEvent, ClientOptions, Job, Outcome, TransferOptions};
use syncline::wire::{
    Begin, BeginFlags, Brake, Decoder, Direction, FrameType, Hello, Message, Open, Opened, Piece, TargetKind,
    VERSION_MAX, VERSION_MIN, features,
};

/// A frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: FrameType,
    pub payload: Vec<u8>,
}

/// What a raw client speaks over: TCP, or TLS over it.
pub trait Wire: Read + Write + Send {}

impl<S: Read + Write + Send> Wire for S {}

/// A client that sends whatever it is told to.
pub struct RawClient {
    stream: Box<dyn Wire>,
    decoder: Decoder,
    unread: Vec<u8>,
    /// Everything that the server ever sent.
    pub heard: Vec<u8>,
}

/// The stream number of the only transfer.
pub const STREAM: u16 = 1;

impl RawClient {
    /// Says hello and opens the share with all rights.
    pub fn open(address: SocketAddr) -> RawClient {
        let mut client = RawClient::connect(address);
        client.greet();
        let opened = client.ask("Share", None, Rights::READ_WRITE);
        assert_eq!(opened.kind, FrameType::Opened);
        Opened::decode(&opened.payload).unwrap();
        client
    }

    /// Says hello and waits for the answer.
    pub fn greet(&mut self) {
        let mut out = Vec::new();
        hello("raw").encode(0, &mut out);
        self.send(&out);
        assert_eq!(self.next().unwrap().kind, FrameType::Hello);
    }

    /// Asks for a share; the answer, whatever it is.
    pub fn ask(&mut self, share: &str, secret: Option<Secret>, wanted: Rights) -> Frame {
        let mut out = Vec::new();
        Open {
            share: Some(ShareName::parse(share).unwrap()),
            secret,
            wanted,
        }
        .encode(0, &mut out);
        self.send(&out);
        let answer = self.next().unwrap();
        if answer.kind == FrameType::Opened {
            self.decoder.lift_limits();
        }
        answer
    }

    pub fn connect(address: SocketAddr) -> RawClient {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        RawClient::over(stream)
    }

    pub fn over(stream: impl Wire + 'static) -> RawClient {
        RawClient {
            stream: Box::new(stream),
            decoder: Decoder::new(PREAUTH_FRAME_BYTES_MAX),
            unread: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// Begins a transfer and waits until the server is ready.
    pub fn begin(&mut self, begin: &Begin) -> TargetKind {
        self.send_message(begin);
        let ready = self.expect(FrameType::Ready);
        TargetKind::decode(&ready.payload).unwrap()
    }

    pub fn send_message<'a>(&mut self, message: &impl Message<'a>) {
        let mut out = Vec::new();
        message.encode(STREAM, &mut out);
        self.send(&out);
    }

    /// Whether bytes could be sent.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends bytes; a server that has closed already is not an error here.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next control frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let mut rest = self.unread.as_slice();
            let piece = self.decoder.next(&mut rest).expect("the server speaks the protocol");
            let frame = match piece {
                Some(Piece::Control { kind, payload, .. }) => Some(Frame {
                    kind,
                    payload: payload.to_vec(),
                }),
                _ => None,
            };
            let more = piece.is_some();
            let taken = self.unread.len() - rest.len();
            self.unread.drain(..taken);
            if frame.is_some() {
                return frame;
            }
            if more {
                continue;
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    self.heard.extend_from_slice(&buffer[..count]);
                }
            }
        }
    }

    /// The next frame of this kind; what comes before it is skipped.
    pub fn expect(&mut self, kind: FrameType) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("no {kind:?} before the end"));
            if frame.kind == kind {
                return frame;
            }
            assert_ne!(frame.kind, FrameType::Close, "{:?}", Fault::decode(&frame.payload));
        }
    }

    /// The reason with which the server closes.
    pub fn expect_close(&mut self) -> Fault {
        while let Some(frame) = self.next() {
            if frame.kind == FrameType::Close {
                return Fault::decode(&frame.payload).unwrap();
            }
        }
        panic!("the connection ended without a reason");
    }
}

impl RawClient {
    /// Answers pings and sends its own, at that interval and nothing else, until the server closes; its reason.
    pub fn pinging_until_closed(&mut self, interval: Duration) -> Fault {
        loop {
            self.send(&frame(FrameType::Ping, &[1; 8]));
            let answer = self.next().expect("the server says why it closes");
            match answer.kind {
                FrameType::Close => return Fault::decode(&answer.payload).unwrap(),
                FrameType::Ping => self.send(&frame(FrameType::Pong, &answer.payload)),
                _ => std::thread::sleep(interval),
            }
        }
    }
}

pub fn hello(name: &str) -> Hello<'_> {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        features: features::ALL,
        name,
    }
}

/// A control frame of `length` declared bytes, of which `payload` are there.
pub fn frame_declaring(kind: FrameType, length: u32, payload: &[u8]) -> Vec<u8> {
    let stream = if kind.is_transfer() { STREAM } else { 0 };
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(&[kind as u8, 0]);
    frame.extend_from_slice(&stream.to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A control frame.
pub fn frame(kind: FrameType, payload: &[u8]) -> Vec<u8> {
    frame_declaring(kind, u32::try_from(payload.len()).unwrap(), payload)
}

/// A push to the root of the share.
pub fn push_begin() -> Begin {
    Begin {
        direction: Direction::Push,
        flags: BeginFlags::default(),
        brake: Brake::Default,
        target: None,
        scopes: Vec::new(),
        sources: Vec::new(),
        rules: Vec::new(),
    }
}

/// What `encode` makes of a legal path, with `path`, which is not, in its place.
pub fn forge(path: &[u8], encode: impl Fn(&RelPath) -> Vec<u8>) -> Vec<u8> {
    let stand_in = vec![b'Q'; path.len()];
    let mut frame = encode(&RelPath::parse(&stand_in).unwrap());
    let at = frame
        .windows(path.len())
        .position(|part| part == stand_in)
        .expect("the path stands in the frame");
    frame[at..at + path.len()].copy_from_slice(path);
    frame
}

impl World {
    /// Polls the server until `peer`, in its own thread, is done.
    pub fn serve_while<T: Send>(&mut self, peer: impl FnOnce(SocketAddr) -> T + Send) -> T {
        let address = self.address;
        std::thread::scope(|scope| {
            let peer = scope.spawn(move || peer(address));
            while !peer.is_finished() {
                let events = self.server.poll(Some(Duration::from_millis(1))).unwrap();
                self.server_events.extend(events);
            }
            match peer.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// What a false server does at an event; it may use the machine, or answer with bytes of its own.
pub type Script = Box<dyn FnMut(&mut Machine, Step<'_>) -> Vec<u8> + Send>;

/// Where the session with a false server stands.
pub enum Step<'a> {
    /// The client began; it was told [`TargetKind`] and waits.
    Began(&'a Begin),
    /// Something else came.
    Event(&'a Event<'a>),
}

/// Runs `job` against a server that lets everybody in, says `kind` to every begin and then follows
/// `script`. Returns how the client saw it.
pub fn against(
    options: ClientOptions,
    job: impl FnOnce(SocketAddr) -> Job,
    transfer: TransferOptions,
    kind: TargetKind,
    script: Script,
) -> (Outcome, Vec<ClientEvent>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Client::start(options, job(address), transfer).unwrap();
    let server = std::thread::spawn(move || serve(&listener, kind, script));
    let mut events = Vec::new();
    loop {
        for event in client.poll(Some(Duration::from_millis(1))).unwrap() {
            if let ClientEvent::Finished(outcome) = event {
                drop(client);
                server.join().unwrap();
                return (outcome, events);
            }
            events.push(event);
        }
    }
}

fn serve(listener: &TcpListener, kind: TargetKind, mut script: Script) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut machine = Machine::server("false");
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let mut rest = &buffer[..count];
        while let Some(piece) = decoder.next(&mut rest).unwrap() {
            let Ok(event) = machine.handle(piece) else {
                return;
            };
            let mut extra = Vec::new();
            match event {
                Event::Open(open) => machine.grant(Opened {
                    rights: open.wanted,
                    paired: false,
                }),
                Event::Begin(begin) => {
                    machine.ready(kind);
                    extra = script(&mut machine, Step::Began(&begin));
                }
                Event::Closed(_) => return,
                event => extra = script(&mut machine, Step::Event(&event)),
            }
            let mut out = machine.take_output();
            out.extend_from_slice(&extra);
            if stream.write_all(&out).is_err() {
                return;
            }
            if machine.is_open() {
                decoder.lift_limits();
            }
        }
    }
}
