use fpuswitch::{check::{Group, explore::{Scope, explore}}, fpu::policy::Builtin};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let policy: Builtin = a[1].parse().unwrap();
    let mut scope = Scope { threads: a[2].parse().unwrap(), cpus: a[3].parse().unwrap(), tasks: a[4].parse().unwrap(), ..Scope::default() };
    scope.groups = a[5..].iter().map(|g| g.parse::<Group>().unwrap()).collect();
    let t = std::time::Instant::now();
    let r = explore(policy, scope);
    let s = t.elapsed().as_secs_f64();
    match r { Ok(c) => println!("{:14} {:?} {c:?} {s:.1} s, {:.0}/s", a[1], &a[2..], c.transitions as f64 / s), Err(e) => println!("{} {e:#?}", a[1]) }
    let st = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", st.lines().find(|l| l.starts_with("VmHWM")).unwrap());
}
