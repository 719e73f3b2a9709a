//! What the HTTP machine takes and what it refuses, however its bytes are cut.

use super::*;
use proptest::prelude::*;

const PLAIN: &str = "GET /metrics HTTP/1.1\r\nHost: localhost:7180\r\n\r\n";

fn hosts() -> Hosts {
    Hosts::of("127.0.0.1:7180".parse().unwrap())
}

/// Feeds `pieces` one after the other, answers every request with its path, and gives what was asked for, what was
/// sent back, and the machine.
fn converse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Request>, String, Machine) {
    let mut machine = Machine::new(hosts());
    let mut requests = Vec::new();
    for mut piece in pieces {
        while let Some(request) = machine.next(&mut piece) {
            let answer = Response::text(Status::Ok, request.path());
            machine.respond(&answer);
            requests.push(request);
        }
        assert!(piece.is_empty(), "what arrives is taken");
        assert!(machine.head.len() <= HTTP_HEAD_BYTES_MAX);
    }
    let out = String::from_utf8(machine.take_output()).unwrap();
    (requests, out, machine)
}

/// The status of the only answer to `request`, after which the connection has to be over.
fn refused(request: &str) -> String {
    let (requests, out, machine) = converse([request.as_bytes()]);
    assert!(requests.is_empty(), "{request:?} was passed on");
    assert!(machine.is_over() && out.contains("\r\nConnection: close\r\n"), "{out}");
    out.split(' ').nth(1).unwrap().to_owned()
}

fn with_headers(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

#[test]
fn a_request_is_understood_and_answered() {
    let text = "GET /a/b?c=d?e HTTP/1.1\r\nHost: 127.0.0.1:7180\r\nAccept:  text/plain \r\nX: 1\r\nX: 2\r\n\r\n";
    let (requests, out, machine) = converse([text.as_bytes()]);
    let [request] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!((request.method(), request.path()), (Method::Get, "/a/b"));
    assert_eq!(request.query(), Some("c=d?e"));
    assert_eq!(request.header("accept"), Some(&b"text/plain"[..]));
    assert_eq!(request.header("x"), None, "which of the two would it be?");
    assert!(out.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n"));
    assert!(out.ends_with("\r\n\r\n/a/b") && !out.contains("Connection"), "{out}");
    assert!(!machine.is_over() && !machine.is_amid_head());
}

// Protects from a reader that depends on how the network cuts the bytes.
#[test]
fn a_request_is_the_same_wherever_it_is_cut() {
    let text = PLAIN.as_bytes();
    let whole = converse([text]);
    for at in 0..=text.len() {
        let cut = converse([&text[..at], &text[at..]]);
        assert_eq!((&cut.0, &cut.1), (&whole.0, &whole.1), "cut at {at}");
    }
    let bytes = converse(text.chunks(1));
    assert_eq!((bytes.0, bytes.1), (whole.0, whole.1));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let text: String = ["/1", "/2", "/3"].map(|path| PLAIN.replace("/metrics", path)).concat();
    for step in [1, 7, 1000] {
        let (requests, out, machine) = converse(text.as_bytes().chunks(step));
        let paths: Vec<&str> = requests.iter().map(Request::path).collect();
        assert_eq!(paths, ["/1", "/2", "/3"]);
        let at = |path: &str| out.find(&format!("\r\n\r\n{path}")).unwrap();
        assert!(at("/1") < at("/2") && at("/2") < at("/3"));
        assert!(!machine.is_over());
    }
}

#[test]
fn the_next_request_waits_for_the_answer_to_the_first() {
    let text = PLAIN.repeat(2);
    let mut machine = Machine::new(hosts());
    let mut input = text.as_bytes();
    assert!(machine.next(&mut input).is_some());
    assert_eq!(machine.next(&mut input), None);
    assert_eq!(input.len(), PLAIN.len(), "it is still there");
    machine.respond(&Response::text(Status::Unavailable, "later"));
    assert!(machine.next(&mut input).is_some());
}

#[test]
fn an_answer_to_head_has_the_length_and_no_body() {
    let (_, out, _) = converse([PLAIN.replace("GET", "HEAD").as_bytes()]);
    assert!(
        out.contains("\r\nContent-Length: 8\r\n") && out.ends_with("\r\n\r\n"),
        "{out}"
    );
}

#[test]
fn a_connection_ends_when_its_peer_wants_so_or_after_many_requests() {
    for text in [
        with_headers("Connection: close\r\n"),
        with_headers("Connection: keep-alive, Close\r\n"),
        PLAIN.replace("1.1", "1.0"),
    ] {
        let (requests, out, machine) = converse([text.as_bytes(), PLAIN.as_bytes()]);
        assert_eq!(requests.len(), 1, "{text}");
        assert!(machine.is_over() && out.contains("\r\nConnection: close\r\n"), "{text}");
    }
    let many = PLAIN.repeat(HTTP_REQUESTS_MAX as usize + 5);
    let (requests, _, machine) = converse([many.as_bytes()]);
    assert_eq!(requests.len(), HTTP_REQUESTS_MAX as usize);
    assert!(machine.is_over());
}

#[test]
fn whoever_winds_up_answers_what_is_asked_and_no_more() {
    let mut machine = Machine::new(hosts());
    let text = PLAIN.repeat(2);
    let mut input = text.as_bytes();
    machine.next(&mut input).unwrap();
    machine.wind_up();
    assert!(!machine.is_over());
    machine.respond(&Response::text(Status::Ok, "last"));
    assert!(machine.is_over() && machine.next(&mut input).is_none());
    let out = String::from_utf8(machine.take_output()).unwrap();
    assert!(out.contains("Connection: close") && out.ends_with("last"));
    let mut quiet = Machine::new(hosts());
    quiet.wind_up();
    assert!(quiet.is_over());
}

// Row 31: the page of a rebound name reads nothing, whatever else its request says.
#[test]
fn row_31_the_host_is_checked_before_all_else() {
    for host in ["evil.example", "evil.example:7180", "192.0.2.1", ""] {
        for line in ["GET / HTTP/1.1", "POST / HTTP/1.1", "GET http://localhost/ HTTP/1.1"] {
            let body = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
            assert_eq!(
                refused(&format!("{line}\r\nHost: {host}\r\n{body}\r\n")),
                "421",
                "{line} {host}"
            );
        }
    }
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), "400");
    assert_eq!(
        refused("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"),
        "400"
    );
    assert_eq!(
        refused("GET / HTTP/1.0\r\n\r\n"),
        "400",
        "a name is asked of old clients, too"
    );
}

// Row 35: nothing that two readers could understand in two ways is passed on, and nothing behind it is read.
#[test]
fn row_35_smuggling_is_refused() {
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x0\r\n",
        "Content-Length:\r\n",
        "Content-Length : 0\r\n",
        " folded\r\n",
        "X: a\r\n folded\r\n",
        "X: a\rY: b\r\n",
        "X: a\nContent-Length: 0\r\n",
        "X: \0\r\n",
        "X\r\n",
        ": x\r\n",
    ] {
        let text = with_headers(headers) + PLAIN;
        let (requests, out, _) = converse([text.as_bytes()]);
        assert!(requests.is_empty(), "{headers:?}");
        assert!(out.starts_with("HTTP/1.1 400 "), "{headers:?}: {out}");
        assert_eq!(out.matches("Content-Length").count(), 1, "what follows is not read");
    }
    assert_eq!(refused(&with_headers("Content-Length: 5\r\n")), "413");
    let (requests, ..) = converse([with_headers("Content-Length: 0\r\n").as_bytes()]);
    assert_eq!(requests.len(), 1);
}

#[test]
fn what_is_no_request_is_refused() {
    for (text, status) in [
        ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("get / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405"),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", "505"),
        ("PRI * HTTP/2.0\r\n\r\n", "505"),
        ("GET /\r\n\r\n", "400"),
        ("GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", "505"),
        ("\r\n\r\nGET / HTTP/1.1\r\n", "400"),
        ("\n", "400"),
        ("GET / HTTP/1.1\nHost: localhost\n\n", "400"),
        ("\0\0\0\x05\x01hello", "400"),
    ] {
        assert_eq!(refused(text), status, "{text:?}");
    }
    let (_, out, _) = converse(["DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes()]);
    assert!(out.contains("\r\nAllow: GET, HEAD\r\n"));
}

// Row 35: a megabyte of headers is refused when it reaches the limit, not when it ends.
#[test]
fn row_35_headers_are_bounded_in_bytes_and_number() {
    let fill = |total: usize| {
        let (start, end) = ("GET / HTTP/1.1\r\nHost: localhost\r\nX: ", "\r\n\r\n");
        format!("{start}{}{end}", "a".repeat(total - start.len() - end.len()))
    };
    let (requests, ..) = converse([fill(HTTP_HEAD_BYTES_MAX).as_bytes()]);
    assert_eq!(requests.len(), 1, "exactly at the limit");
    assert_eq!(refused(&fill(HTTP_HEAD_BYTES_MAX + 1)), "431");
    assert_eq!(refused(&"a".repeat(1 << 20)), "431");
    let lines = |count: usize| (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>();
    let (requests, ..) = converse([with_headers(&lines(HTTP_HEADERS_MAX - 1)).as_bytes()]);
    assert_eq!(requests.len(), 1);
    assert_eq!(refused(&with_headers(&lines(HTTP_HEADERS_MAX))), "431");
}

proptest! {
    // Any bytes, cut anywhere: the same requests and answers, bounded memory, no panic.
    #[test]
    fn any_bytes_cut_anywhere_give_the_same(
        pieces in prop::collection::vec(prop_oneof![
            Just(PLAIN.as_bytes().to_vec()),
            Just(b"GET /x HTTP/1.1\r\n".to_vec()),
            Just(b"Host: localhost\r\n".to_vec()),
            Just(b"Host: evil.example\r\n".to_vec()),
            Just(b"Connection: close\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ], 0..12),
        step in 1usize..50,
    ) {
        let bytes = pieces.concat();
        let whole = converse([&bytes[..]]);
        let cut = converse(bytes.chunks(step));
        prop_assert_eq!((&whole.0, &whole.1, whole.2.is_over()), (&cut.0, &cut.1, cut.2.is_over()));
    }
}
