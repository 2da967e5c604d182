//! What a WebSocket client sends, cut at will: a count, that many sizes of pieces, and the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../server/src/transports/ws/frame_properties.rs"]
mod frame_properties;
#[path = "../../../server/src/transports/ws/frames.rs"]
mod frames;

fuzz_target!(|bytes: &[u8]| {
    let Some((&count, rest)) = bytes.split_first() else {
        return;
    };
    let (sizes, stream) = rest.split_at(usize::from(count % 8).min(rest.len()));
    frame_properties::stream(stream, sizes);
});
