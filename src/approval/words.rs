//! Four short words that stand for a digest when people talk.
//!
//! They help two people to notice that they look at different requests ("mine says *amber canoe*").
//! They are 32 bits of a public hash and so prove nothing: an agent can search for two statements
//! with the same words. Every verdict is checked against the whole digest.

use crate::statement::Digest;

/// The words for the first four bytes of `digest`.
#[must_use]
pub fn words(digest: &Digest) -> [&'static str; 4] {
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d].map(|byte| WORDS.get(usize::from(byte)).copied().unwrap_or("?"))
}

/// 256 short, concrete words. The order is part of what
/// old requests and their ledger entries show: never change it.
#[rustfmt::skip]
static WORDS: [&str; 256] = [
    "acorn", "actor", "agate", "album", "alder", "alloy", "amber", "anchor",
    "angle", "ankle", "anvil", "apple", "apron", "arch", "arrow", "aspen",
    "atlas", "attic", "autumn", "avenue", "axis", "badge", "bagel", "bamboo",
    "banjo", "barley", "basil", "basket", "beacon", "beaver", "bench", "berry",
    "birch", "bison", "bishop", "blanket", "bonnet", "border", "bottle", "bramble",
    "brass", "brick", "bridge", "bronze", "bucket", "buffalo", "bugle", "butter",
    "button", "cabin", "cable", "cactus", "camel", "candle", "canoe", "canyon",
    "carbon", "carpet", "castle", "cedar", "cello", "cement", "chalk", "cherry",
    "chess", "cider", "cinema", "circus", "clarinet", "clay", "clover", "cobalt",
    "coffee", "comet", "compass", "copper", "coral", "cotton", "cousin", "crater",
    "cricket", "crystal", "cymbal", "daisy", "dancer", "delta", "denim", "desert",
    "diamond", "dolphin", "domino", "donkey", "dragon", "drum", "eagle", "easel",
    "echo", "ember", "emerald", "engine", "envelope", "fabric", "falcon", "feather",
    "fennel", "ferry", "fiddle", "finger", "flame", "flute", "forest", "fossil",
    "fountain", "fox", "galaxy", "garden", "garlic", "gazelle", "geyser", "ginger",
    "giraffe", "glacier", "goblet", "granite", "grape", "guitar", "hammer", "harbor",
    "harvest", "hazel", "hedge", "helmet", "heron", "hickory", "honey", "horizon",
    "hotel", "igloo", "indigo", "island", "ivory", "jacket", "jaguar", "jasmine",
    "jelly", "jigsaw", "jungle", "juniper", "kayak", "kernel", "kettle", "kiwi",
    "ladder", "lagoon", "lantern", "laurel", "lava", "lemon", "leopard", "lilac",
    "lion", "lizard", "lobster", "lotus", "magnet", "magpie", "mango", "maple",
    "marble", "meadow", "melon", "mercury", "meteor", "mirror", "mitten", "monkey",
    "mosaic", "muffin", "museum", "mustard", "napkin", "nectar", "needle", "nickel",
    "nutmeg", "oasis", "oatmeal", "ocean", "olive", "onion", "opera", "orbit",
    "orchid", "otter", "oxygen", "oyster", "paddle", "palace", "panda", "papaya",
    "parrot", "pebble", "pelican", "pepper", "piano", "pigeon", "pillow", "pirate",
    "planet", "pocket", "poppy", "prairie", "puffin", "pumpkin", "puzzle", "python",
    "quartz", "quilt", "rabbit", "radish", "raven", "ribbon", "river", "rocket",
    "rooster", "ruby", "saddle", "saffron", "salmon", "satin", "saturn", "scarf",
    "shadow", "shovel", "silver", "spider", "spruce", "stamp", "sugar", "sunset",
    "tango", "teapot", "temple", "thistle", "tiger", "timber", "tomato", "tulip",
    "tunnel", "turtle", "umbrella", "valley", "velvet", "violin", "walnut", "zebra",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_is_a_distinct_word_for_every_byte() {
        let distinct: BTreeSet<_> = WORDS.iter().collect();

        assert_eq!(distinct.len(), 256);
        assert!(WORDS.iter().all(|word| word.len() <= 8 && word.bytes().all(|b| b.is_ascii_lowercase())));
    }

    #[test]
    fn words_are_taken_from_the_front_of_the_digest() {
        let mut bytes = [7; 32];
        [bytes[0], bytes[1], bytes[2], bytes[3]] = [0, 255, 6, 54];

        assert_eq!(words(&Digest::from_bytes(bytes)), ["acorn", "zebra", "amber", "canoe"]);
    }
}
