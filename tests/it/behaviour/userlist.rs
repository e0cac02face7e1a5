//! `pgweir userlist`: from the roles of a server to a file with which they log in.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use crate::fixture::*;

fn userlist(args: &[&str]) -> Output {
    let mut command = Command::new(pooler_bin());
    become_unprivileged(&mut command).arg("userlist").args(args);
    command.current_dir("/").output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_roles_of_a_server_log_in_by_the_file() {
    bounded(60, async {
        let cluster = Cluster::own();
        for sql in [
            "CREATE ROLE \"a \"\"b\" LOGIN PASSWORD 'quoted'",
            "CREATE ROLE group_only PASSWORD 'x'",
            "CREATE ROLE passwordless LOGIN",
            "CREATE ROLE expired LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01'",
        ] {
            cluster.sql("postgres", sql).await;
        }
        let source = format!("{} user=postgres dbname=postgres", cluster.address());
        let mut ini = Ini::with_database(&cluster, "postgres");
        let path = ini.file("list.txt", "\"old\" \"old\"\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let output = userlist(&["--from", &source, "--output", &path]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stdout, b"");
        let told = text(&output.stderr);
        assert!(
            told.contains("left out: \"passwordless\" has no password\n"),
            "{told}"
        );
        assert!(
            told.contains("left out: \"expired\" has a password that is no longer valid\n"),
            "{told}"
        );
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written.contains("\"u_scram\" \"SCRAM-SHA-256$"),
            "{written}"
        );
        assert!(written.contains("\"u_md5\" \"md5"), "{written}");
        assert!(
            written.contains("\"a \"\"b\" \"SCRAM-SHA-256$"),
            "{written}"
        );
        for left_out in ["group_only", "expired", "passwordless", "\"old\""] {
            assert!(!written.contains(left_out), "{written}");
        }
        assert_eq!(mode(path.as_ref()), 0o600);

        ini.set("auth_type", "scram-sha-256")
            .set("auth_file", &path);
        ini.set("admin_users", "u_scram");
        let pooler = ini.start().await;
        for (user, password) in [("u_scram", "u_scram_pw"), ("a \"b", "quoted")] {
            let mut client =
                crate::proto::Conn::login(pooler.port, user, "p", Some(password)).await;
            assert_eq!(client.ok("SELECT current_user").await.value(), user);
        }

        // Some roles only, to standard output.
        for mode in ["disable", "prefer", "require"] {
            let source = format!("{source} sslmode={mode}");
            let output = userlist(&["--from", &source, "u_md5", "nobody"]);
            let lines = text(&output.stdout);
            assert!(
                lines.starts_with("\"u_md5\" \"md5") && lines.lines().count() == 1,
                "{output:?}"
            );
            assert!(text(&output.stderr).contains("there is no role \"nobody\""));
        }
    })
    .await;
}

#[tokio::test]
async fn what_fails_leaves_the_file_alone() {
    bounded(60, async {
        let cluster = Cluster::shared();
        let ini = Ini::new();
        let path = ini.file("list.txt", "as it was");
        let inode = std::fs::metadata(&path).unwrap().ino();
        let address = cluster.address();
        for (source, told) in [
            (
                format!("{address} user=u_scram password=wrong"),
                "could not connect: ",
            ),
            (
                format!("{address} user=u_scram password=u_scram_pw dbname=postgres"),
                "permission denied",
            ),
            (
                format!("{address} user=u_trust sslmode=verify-full dbname=postgres"),
                "could not connect: ",
            ),
            ("host=127.0.0.1 port=1 user=x".to_owned(), "connect failed"),
            ("host=127.0.0.1".to_owned(), "names no user"),
        ] {
            let output = userlist(&["--from", &source, "--output", &path]);
            assert_eq!(output.status.code(), Some(1), "{source}");
            let error = text(&output.stderr);
            assert!(error.contains(told), "{source}: {error}");
            assert!(
                !error.contains("_pw") && !error.contains("wrong"),
                "{error}"
            );
        }
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "as it was");
        let source = format!("{address} user=postgres dbname=postgres");
        let output = userlist(&["--from", &source, "--output", "/nonexistent/list.txt"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("could not write /nonexistent/list.txt"));
    })
    .await;
}
