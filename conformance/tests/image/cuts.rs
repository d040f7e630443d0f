//! Connections that are cut, reset or stall at random places of any answer: the pull succeeds, or
//! fails in one line, and the next one succeeds.

use std::sync::{Arc, Mutex};
use std::thread;

use conformance::HostileRegistry;
use conformance::hostile::Delivery;
use conformance::images::{Compression, Entry, Image, ImageBuilder, Layer};

use super::resume::next;
use super::{assert_undamaged, made_store, state};

/// Registries that are asked at once, most of the time by clients that pause.
const REGISTRIES: u64 = 8;
/// Connections that each of them breaks.
const CUTS: usize = 25;

/// A number of a sequence that is the same in each run, below `limit`.
fn below(seed: &mut u64, limit: usize) -> usize {
    let number = (0..4).fold(0, |number, _| number << 8 | usize::from(next(seed)));
    number % limit.max(1)
}

/// What becomes of an answer: of two, one is broken at a place within it or right behind.
fn chance(seed: &mut u64, length: usize, stalls: &mut usize) -> Delivery {
    let place = below(seed, length + 1);
    match below(seed, 8) {
        0 => Delivery::HeadCutAfter(below(seed, 100)),
        1 => Delivery::ResetAfter(place),
        // Each takes a second.
        2 if *stalls > 0 => {
            *stalls -= 1;
            Delivery::StallAfter(place)
        }
        3 | 4 => Delivery::CutAfter(place),
        _ => Delivery::Whole,
    }
}

fn image() -> Image {
    let mut seed = 0x0123_4567_89ab_cdef;
    let noise: Vec<u8> = (0..1_200_000).map(|_| next(&mut seed)).collect();
    ImageBuilder::new()
        .layer_in(
            Compression::Plain,
            &Layer::of([Entry::dir("d"), Entry::file("d/noise", noise)]).finish(),
        )
        .layer(&Layer::of([Entry::file("small", "1")]).finish())
        .build()
}

/// Pulls again and again from a registry that breaks connections until it has broken enough.
fn pull_through_cuts(number: u64) {
    let (server, store) = (HostileRegistry::honest().unwrap(), made_store());
    let empty = state(&store);
    server.ask_for_token(None);
    let reference = server.serve(&image(), "image", "latest");
    let cuts = Arc::new(Mutex::new(0));
    let (log, mut seed, mut stalls) = (Arc::clone(&cuts), number * 0x9e37_79b9 + 1, 3);
    server.deliver(move |_, answer| {
        let mut cuts = log.lock().unwrap();
        if *cuts == CUTS {
            return Delivery::Whole;
        }
        let delivery = chance(&mut seed, answer.body.len(), &mut stalls);
        *cuts += usize::from(delivery != Delivery::Whole);
        delivery
    });
    let args = ["--stall-timeout", "1", "pull", "--quiet", &reference];
    let mut whole = None;
    for turn in 0.. {
        let is_over = *cuts.lock().unwrap() == CUTS;
        let output = store.run(&args);
        if output.code() == 0 {
            let pulled = state(&store);
            assert_eq!(
                whole.get_or_insert(pulled.clone()),
                &pulled,
                "{number}: {turn}"
            );
            store.run(&["rm", &reference]).success();
            store.run(&["prune"]).success();
            assert_eq!(state(&store), empty, "{number}: {turn}");
        } else {
            assert_undamaged(&store, &format!("{number}: {turn}"));
            let line = output.one_line_failure();
            assert!(line.contains(server.host()), "{line}");
            assert!(!is_over, "{number}: nothing is broken any more: {output}");
        }
        if is_over {
            break;
        }
    }
}

#[test]
fn two_hundred_random_cuts_of_any_answer_end_in_good_pulls() {
    let pullers: Vec<_> = (0..REGISTRIES)
        .map(|number| thread::spawn(move || pull_through_cuts(number)))
        .collect();
    for puller in pullers {
        puller.join().unwrap();
    }
}
