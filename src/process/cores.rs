//! How many cores the process may use, containers included.
//!
//! The kernel says which cores it may run on, and its control groups how much time it gets. The texts are read by [`quota`],
//! which is pure; the standard library's count rounds a quota down, which would leave 1.5 cores with one worker.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Cores for this process: those it may run on, or as many as its quota fills, rounded up; at least 1.
pub fn usable_cores() -> usize {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let quota = quota(&groups, &mounts, |path| std::fs::read_to_string(path).ok());
    allowed_cores().min(quota.unwrap_or(usize::MAX)).max(1)
}

fn allowed_cores() -> usize {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count())
            .filter(|&core| set.is_set(core) == Ok(true))
            .count(),
        // A machine with more cores than the set has room for.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The smallest quota of the process' control groups and those above them, in whole cores, rounded up.
///
/// `groups` is `/proc/self/cgroup`, `mounts` `/proc/self/mountinfo`, and `read` reads a file. Both versions of control groups
/// are looked at, since a machine can have both. Whatever is missing or malformed sets no limit.
pub fn quota(groups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let mut smallest = None;
    for group in groups.lines().filter_map(Group::parse) {
        for mount in mounts.iter().filter(|mount| mount.version == group.version) {
            for directory in mount.directories(group.path) {
                let found = group.version.read_quota(&directory, &read);
                smallest = [smallest, found].into_iter().flatten().min();
            }
        }
    }
    smallest
}

/// Which of the two kinds of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// One tree per controller; here: the one with `cpu`.
    V1,
    /// One tree for all.
    V2,
}

impl Version {
    fn read_quota(self, directory: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
        match self {
            Version::V1 => {
                let quota = read(&directory.join("cpu.cfs_quota_us"))?;
                let period = read(&directory.join("cpu.cfs_period_us"))?;
                whole_cores(quota.trim(), period.trim())
            }
            Version::V2 => {
                let text = read(&directory.join("cpu.max"))?;
                let mut words = text.split_whitespace();
                whole_cores(words.next()?, words.next()?)
            }
        }
    }
}

/// Microseconds of running per period of real time; `max` and -1 are no limit.
fn whole_cores(quota_us: &str, period_us: &str) -> Option<usize> {
    let quota_us: u64 = quota_us.parse().ok()?;
    let period_us: u64 = period_us.parse().ok().filter(|&period| period > 0)?;
    usize::try_from(quota_us.div_ceil(period_us))
        .ok()
        .map(|cores| cores.max(1))
}

/// A line of `/proc/self/cgroup`: `4:cpu,cpuacct:/path`, or `0::/path` for version 2.
#[derive(Debug)]
struct Group<'a> {
    version: Version,
    path: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Group<'a>> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let version = match (number, controllers) {
            ("0", "") => Version::V2,
            _ if controllers.split(',').any(|c| c == "cpu") => Version::V1,
            _ => return None,
        };
        Some(Group { version, path })
    }
}

/// A place where (part of) such a tree can be read.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// Which directory of the tree is mounted: in containers often not its top.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// A line of `/proc/self/mountinfo`:
    /// `32 31 0:29 /root /mount/point rw,relatime shared:9 - cgroup cgroup rw,cpu` (any number of words before the dash).
    fn parse(line: &str) -> Option<Mount> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (unescape(place.next()?), unescape(place.next()?));
        let mut kind = kind.split(' ');
        let version = match (kind.next()?, kind.nth(1)?) {
            ("cgroup2", _) => Version::V2,
            ("cgroup", options) if options.split(',').any(|option| option == "cpu") => Version::V1,
            _ => return None,
        };
        Some(Mount {
            version,
            root: root.into(),
            point: point.into(),
        })
    }

    /// The directories, from the group's own up to the mount point: each can set a limit. A group that lies outside of what is
    /// mounted (a container that is told its path on the host) can only be looked at from the mount point.
    fn directories(&self, group: &str) -> Vec<PathBuf> {
        let inside = Path::new(group)
            .strip_prefix(&self.root)
            .unwrap_or(Path::new(""));
        let is_plain = inside
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
        let inside = if is_plain { inside } else { Path::new("") };
        let mut seen = HashSet::new();
        inside
            .ancestors()
            .map(|up| self.point.join(up))
            .filter(|d| seen.insert(d.clone()))
            .collect()
    }
}

/// mountinfo writes blanks and backslashes in names as `\040`.
fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        let Some(code) = code.filter(u8::is_ascii) else {
            out.push('\\');
            rest = &rest[at + 1..];
            continue;
        };
        out.push(char::from(code));
        rest = &rest[at + 4..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V2_MOUNT: &str = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1_MOUNT: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n";

    fn check(groups: &str, mounts: &str, files: &[(&str, &str)], expected: Option<usize>) {
        let read = |path: &Path| {
            files
                .iter()
                .find(|(name, _)| Path::new(name) == path)
                .map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(
            quota(groups, mounts, read),
            expected,
            "{groups:?} {files:?}"
        );
    }

    #[test]
    fn quotas_are_rounded_up() {
        let rounded = |quota, period| whole_cores(quota, period);
        assert_eq!(rounded("100000", "100000"), Some(1));
        assert_eq!(rounded("150000", "100000"), Some(2));
        assert_eq!(rounded("10000", "100000"), Some(1));
        assert_eq!(rounded("0", "100000"), Some(1));
        assert_eq!(rounded("250000", "50000"), Some(5));
        for (quota, period) in [
            ("max", "100000"),
            ("-1", "100000"),
            ("1", "0"),
            ("", ""),
            ("1", "-1"),
        ] {
            assert_eq!(rounded(quota, period), None);
        }
    }

    #[test]
    fn version_2() {
        let own = "/sys/fs/cgroup/a.slice/b.service/cpu.max";
        let above = "/sys/fs/cgroup/a.slice/cpu.max";
        let group = "0::/a.slice/b.service\n";
        check(group, V2_MOUNT, &[(own, "150000 100000\n")], Some(2));
        check(group, V2_MOUNT, &[(own, "max 100000\n")], None);
        check(
            group,
            V2_MOUNT,
            &[(own, "max 100000\n"), (above, "300000 100000\n")],
            Some(3),
        );
        check(
            group,
            V2_MOUNT,
            &[(own, "800000 100000\n"), (above, "300000 100000\n")],
            Some(3),
        );
        check(group, V2_MOUNT, &[(own, "garbage")], None);
        check(group, V2_MOUNT, &[], None);
        // A container with a view of its own.
        check(
            "0::/\n",
            V2_MOUNT,
            &[("/sys/fs/cgroup/cpu.max", "200000 100000\n")],
            Some(2),
        );
        // A process that was moved out of its view's tree.
        check(
            "0::/../other\n",
            V2_MOUNT,
            &[("/sys/fs/cgroup/cpu.max", "200000 100000\n")],
            Some(2),
        );
    }

    #[test]
    fn version_1() {
        let group = "8:pids:/x\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n";
        let quota = (
            "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us",
            "250000\n",
        );
        let none = (
            "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us",
            "-1\n",
        );
        let period = (
            "/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us",
            "100000\n",
        );
        check(group, V1_MOUNT, &[quota, period], Some(3));
        check(group, V1_MOUNT, &[none, period], None);
        check(group, V1_MOUNT, &[quota], None);
        check("1:cpu:/\n0::/\n", "", &[], None);
    }

    #[test]
    fn version_1_in_a_container() {
        // The host's path is told, and only its end is mounted.
        let mount = "40 31 0:29 /docker/abc /sys/fs/cgroup/cpu\\040x ro - cgroup cgroup rw,cpu\n";
        let quota = ("/sys/fs/cgroup/cpu x/cpu.cfs_quota_us", "50000");
        let period = ("/sys/fs/cgroup/cpu x/cpu.cfs_period_us", "100000");
        check("4:cpu:/docker/abc\n", mount, &[quota, period], Some(1));
        check("4:cpu:/elsewhere\n", mount, &[quota, period], Some(1));
        check("4:cpu:/docker/abcdef\n", mount, &[quota, period], Some(1));
    }

    #[test]
    fn both_versions_at_once() {
        let groups = "1:cpu:/\n0::/\n";
        let mounts = format!(
            "{V1_MOUNT}{}",
            V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        );
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/unified/cpu.max", "max 100000"),
        ];
        check(groups, &mounts, &files, Some(4));
    }

    #[test]
    fn names_with_blanks() {
        assert_eq!(unescape(r"a\040b\134c"), r"a b\c");
        assert_eq!(unescape(r"a\"), r"a\");
        assert_eq!(unescape(r"\x\04"), r"\x\04");
    }

    #[test]
    fn this_machine() {
        let cores = usable_cores();
        assert!(cores >= 1 && cores <= allowed_cores());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(groups in "(?s).{0,200}", mounts in "(?s).{0,200}", name in ".{0,40}", text in ".{0,20}") {
            let _ = quota(&groups, &mounts, |_| Some(text.clone()));
            let _ = unescape(&name);
            let line = format!("1 2 3:4 {name} {name} rw - cgroup2 x rw");
            let _ = quota(&format!("0::{name}"), &line, |_| Some(text.clone()));
        }
    }
}
