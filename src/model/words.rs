//! Words for bytes, so that people can compare what machines know: one word a byte.
//!
//! Never changes: two versions of Syncline have to show the same. Invariant: no word stands for two bytes.

/// The words for `bytes`, with hyphens between them.
#[must_use]
pub fn words_of(bytes: &[u8]) -> String {
    let words: Vec<&str> = bytes.iter().map(|byte| WORDS[usize::from(*byte)]).collect();
    words.join("-")
}

/// In the order of the bytes that they stand for; common and short.
#[rustfmt::skip]
const WORDS: [&str; 256] = [
    "acid", "acorn", "agent", "album", "alloy", "amber", "anchor", "angel", "apple", "apron", "arch", "arrow",
    "atlas", "attic", "autumn", "axle", "badge", "bagel", "bamboo", "banjo", "barn", "basil", "basket", "beach",
    "beacon", "berry", "bishop", "bison", "blanket", "blossom", "bonnet", "bottle", "branch", "brass", "bread",
    "brick", "bridge", "bronze", "brook", "bucket", "butter", "button", "cabin", "cactus", "camel", "canal",
    "candle", "canoe", "canyon", "carbon", "castle", "cedar", "cello", "chalk", "cherry", "chess", "circus",
    "citrus", "clay", "cliff", "clover", "cobalt", "coffee", "comet", "copper", "coral", "cotton", "cradle",
    "crane", "crater", "cricket", "crystal", "cushion", "daisy", "dancer", "desert", "diamond", "dolphin", "donkey",
    "dragon", "drum", "eagle", "echo", "elbow", "ember", "emerald", "engine", "falcon", "feather", "fern", "fiddle",
    "finger", "flame", "flute", "forest", "fossil", "fox", "galaxy", "garden", "garlic", "gazelle", "ginger",
    "giraffe", "glacier", "globe", "goat", "granite", "grape", "gravel", "guitar", "hammer", "harbor", "harp",
    "hazel", "helmet", "heron", "hockey", "honey", "hornet", "hotel", "igloo", "indigo", "iris", "island", "ivory",
    "jacket", "jaguar", "jasmine", "jelly", "jigsaw", "jungle", "kayak", "kettle", "kitten", "koala", "ladder",
    "lagoon", "lantern", "laurel", "lemon", "lentil", "lilac", "linen", "lion", "lizard", "lobster", "locket",
    "lotus", "magnet", "mango", "maple", "marble", "meadow", "melon", "mirror", "mitten", "monkey", "mosaic",
    "mountain", "mustard", "napkin", "nectar", "needle", "nickel", "noodle", "nutmeg", "oasis", "ocean", "olive",
    "onion", "opal", "orbit", "orchid", "otter", "oyster", "paddle", "palace", "panda", "paper", "parrot", "peanut",
    "pebble", "pencil", "pepper", "piano", "pigeon", "pillow", "pine", "pirate", "planet", "plum", "pocket",
    "polar", "pony", "poppy", "potato", "prism", "pumpkin", "puzzle", "quartz", "quilt", "rabbit", "radar",
    "radish", "raven", "ribbon", "river", "robin", "rocket", "ruby", "saddle", "saffron", "sailor", "salmon",
    "sandal", "satin", "scarf", "shell", "silver", "sketch", "spider", "spruce", "squirrel", "stable", "statue",
    "summit", "sunset", "swan", "tablet", "teapot", "temple", "thistle", "thunder", "tiger", "timber", "tomato",
    "trumpet", "tulip", "tunnel", "turtle", "umbrella", "valley", "vanilla", "velvet", "violin", "volcano", "wagon",
    "walnut", "walrus", "willow", "window", "winter", "wizard", "yacht", "zebra", "zipper",
];

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the comparison of two devices of different versions: the list is as it was, and each word is of one
    // byte.
    #[test]
    fn each_byte_has_its_own_word() {
        let mut words = WORDS.to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 256);
        assert_eq!(words_of(&[0, 5, 255]), "acid-amber-zipper");
    }
}
