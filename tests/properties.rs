//! Random.

mod support;

use fpuswitch::fpu::policy::Builtin;
use proptest::prelude::*;
use support::{Checked, FullLazy, Trap, cases, choice_lists};

proptest! {
    #![proptest_config(cases(256))]
    #[test]
    fn builtin((cpus, raws) in choice_lists(120)) {
        for policy in Builtin::ALL {
            let mut checked = Checked::new(policy, cpus);
            for raw in &raws { checked.step(*raw)?; }
        }
    }
    #[test]
    fn trap((cpus, raws) in choice_lists(120)) {
            let mut checked = Checked::new(Trap, cpus);
            for raw in &raws { checked.step(*raw)?; }
    }
    #[test]
    fn full((cpus, raws) in choice_lists(120)) {
            let mut checked = Checked::new(FullLazy, cpus);
            for raw in &raws { checked.step(*raw)?; }
    }
}
#[test]
fn cov() {
    let mut map = std::collections::BTreeMap::<String, usize>::new();
    let mut tries = 0; let mut none=0;
    for seed in 0..400u32 {
        let mut checked = Checked::new(Builtin::LazySave, 2 + (seed as usize & 1));
        for raw in support::choices(seed).take(120) {
            tries += 1;
            match checked.step(raw) { Ok(Some((e, o))) => { *map.entry(e.to_string().split(' ').next().unwrap().to_owned()).or_default() += 1; 
               for w in o.to_string().split(", ") { *map.entry("   ".to_owned()+w.split(' ').next().unwrap()).or_default() += 1; } }
              Ok(None) => {none+=1;}, Err(b) => {println!("{b}"); break} }
        }
    }
    println!("{tries} {none} {map:#?}");
}
