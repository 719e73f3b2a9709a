//! Fuzzes the payload decoder of every message; the first byte is the frame type.
#![no_main]

use syncline::wire::FrameType;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((&number, payload)) = data.split_first()
        && let Some(kind) = FrameType::from_wire(number)
    {
        syncline_fuzz::bodies::payload_of(kind, payload);
    }
});
