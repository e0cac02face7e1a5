//! What the threads have used of the CPUs, as the kernel counts it. Read when somebody asks, never otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What the threads of one kind have used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadCpu {
    /// `worker-0` and so on; `login` for all of these together; `http`; `main` for the one that the process began with; `other`.
    pub name: String,
    /// How many threads there are of it.
    pub threads: u64,
    /// Time on a CPU, threads that have ended not included.
    pub cpu: Duration,
}

/// All threads of this process, by kind and sorted by name. Empty where the kernel does not tell.
pub fn read() -> Vec<ThreadCpu> {
    read_from(Path::new("/proc/self/task"), std::process::id())
}

fn read_from(tasks: &Path, process: u32) -> Vec<ThreadCpu> {
    let mut kinds: BTreeMap<String, ThreadCpu> = BTreeMap::new();
    let Ok(entries) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    for entry in entries.flatten() {
        let id = entry.file_name();
        let is_first = id.to_str() == Some(process.to_string().as_str());
        // A thread that ends meanwhile is none.
        let Some((name, cpu)) = thread(&entry.path()) else {
            continue;
        };
        let kind = if is_first { "main" } else { kind_of(&name) };
        let sum = kinds.entry(kind.to_owned()).or_default();
        sum.threads += 1;
        sum.cpu += cpu;
    }
    let named = kinds.into_iter();
    named.map(|(name, cpu)| ThreadCpu { name, ..cpu }).collect()
}

fn thread(task: &Path) -> Option<(String, Duration)> {
    let name = fs::read_to_string(task.join("comm")).ok()?;
    let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
    let nanos = schedstat.split(' ').next()?.parse().ok()?;
    Some((name.trim_end().to_owned(), Duration::from_nanos(nanos)))
}

/// Threads whose names we did not give stay together: how many names there can be must be known.
fn kind_of(name: &str) -> &str {
    let worker = name.strip_prefix("worker-");
    let is_worker = worker.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    match name {
        _ if is_worker => name,
        "login" | "http" => name,
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_kind_are_added_up() {
        let folder = tempfile::tempdir().unwrap();
        for (id, name, nanos) in [
            (7, "pgweir", 5),
            (8, "worker-0", 10),
            (9, "login", 20),
            (10, "login", 30),
            (11, "worker-x", 1),
            (12, "worker-10", 2),
        ] {
            let task = folder.path().join(id.to_string());
            fs::create_dir(&task).unwrap();
            fs::write(task.join("comm"), format!("{name}\n")).unwrap();
            fs::write(task.join("schedstat"), format!("{nanos} 17 3\n")).unwrap();
        }
        fs::create_dir(folder.path().join("13")).unwrap(); // one that has just ended
        let row = |name: &str, threads, nanos| ThreadCpu {
            name: name.to_owned(),
            threads,
            cpu: Duration::from_nanos(nanos),
        };
        let expected = [
            row("login", 2, 50),
            row("main", 1, 5),
            row("other", 1, 1),
            row("worker-0", 1, 10),
            row("worker-10", 1, 2),
        ];
        assert_eq!(read_from(folder.path(), 7), expected);
    }

    #[test]
    fn this_process_has_a_main_thread() {
        assert!(read().iter().any(|kind| kind.name == "main"));
    }
}
