//! Invariant: no bytes panic what the played Pi reads: frames, DHCP answers, `config.txt`, the overlay map;
//! a payload lies inside its frame.
//! Must not know: anything but these functions.
//! Spec: `gt_netboot::pi`.

#![no_main]

use gt_netboot::pi::{Board, Model, config, firmware, overlay_map, wire};
use gt_netboot::site::{Mac, Serial};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(datagram) = wire::unframe(data) {
        assert!(datagram.payload.len() <= data.len());
    }
    // As an answer to whoever it says it is for.
    let word = |at: usize| data.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
    let card = data.get(28..).and_then(|rest| rest.first_chunk::<6>());
    if let (Some(xid), Some(card)) = (word(4), card)
        && let Some(reply) = firmware::Reply::read(data, xid, Mac(*card))
    {
        let _ = (reply.boots_a_pi(), reply.tftp_address());
    }
    let board = Board::new(Model::Pi5, Mac([0; 6]), Serial(0));
    config::Config::read(data, &board, &mut |_| Some(data.to_vec())).kernels(Model::Pi5);
    overlay_map::resolve(data, "vc4-kms-v3d", Model::Pi4);
});
