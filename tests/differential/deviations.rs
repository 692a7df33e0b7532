//! What the emulated CPU does otherwise than the manual, for CI to hold against what is known of each.

use super::emulator::Deviation;

#[test]
fn hardware_the_cpu_deviates_as_known() {
    for deviation in Deviation::ALL {
        let seen = if deviation.is_here() { "seen" } else { "not here" };
        println!("DEVIATION {deviation}: {seen}");
    }
    println!("HARDWARE deviations: ran");
}
