//! `reload_watch`: files that change are loaded without being asked for, and bad ones leave everything as it was.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::tls::{client_config, over_tls, use_tls};
use super::*;
use crate::fixture::tls::Authority;
use crate::fixture::*;

/// So often is looked, in seconds.
const OFTEN: &str = "0.05";
const CHANGED: &str = "files changed, re-reading config: ";
const REFUSED: &str = "the old configuration stays in force";

async fn watching() -> Ini {
    let (_, _, mut ini) = setup().await;
    ini.set("reload_watch", OFTEN);
    ini
}

async fn wait_setting(pooler: &Pooler, name: &str, value: &str) {
    wait_until(&format!("{name} to be {value}"), || async {
        pooler.show("CONFIG").await.value("key", name, "value") == value
    })
    .await;
}

/// Waits until so many reloads have been refused.
async fn wait_refused(pooler: &Pooler, times: usize) {
    wait_until("a refused reload", || async {
        pooler.log().matches(REFUSED).count() == times
    })
    .await;
}

/// Puts another file in the place of one, as editors and configuration tools do.
fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let new = path.with_extension("new");
    write_file(&new, content);
    std::fs::rename(new, path).unwrap();
}

/// A folder as Kubernetes mounts a ConfigMap or a Secret: names that lead through `..data` to the folder of one version.
struct Mount {
    dir: PathBuf,
    versions: usize,
}

impl Mount {
    fn new(ini: &Ini, files: &[(&str, &str)]) -> Mount {
        let dir = ini.dir().join("mount");
        std::fs::create_dir(&dir).unwrap();
        let mut mount = Mount { dir, versions: 0 };
        mount.swap(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), mount.dir.join(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes another version the one in use, and takes the last one away.
    fn swap(&mut self, files: &[(&str, &str)]) {
        let old = self.dir.join(format!("..{}", self.versions));
        self.versions += 1;
        let version = format!("..{}", self.versions);
        std::fs::create_dir(self.dir.join(&version)).unwrap();
        for (name, content) in files {
            write_file(&self.dir.join(&version).join(name), content);
        }
        symlink(version, self.dir.join("..data_tmp")).unwrap();
        std::fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        let _ = std::fs::remove_dir_all(old);
    }
}

#[tokio::test]
async fn a_mounted_folder_is_swapped() {
    bounded(90, async {
        let mut ini = watching().await;
        ini.set("auth_type", "md5");
        let users = |more: &str| format!("\"admin\" \"admin_pw\"\n\"postgres\" \"\"\n{more}");
        let stays = "\"u_md5\" \"u_md5_pw\"\n";
        let (both, one) = (
            users(&format!("{stays}\"u_plain\" \"u_plain_pw\"\n")),
            users(stays),
        );
        let settings = "default_pool_size = 7\n";
        let mut mount = Mount::new(&ini, &[("users", &both), ("more.ini", settings)]);
        ini.set("auth_file", mount.path("users").display());
        ini.write();
        // The last lines of the file are those of the main section.
        let including = std::fs::read_to_string(ini.dir().join("pooler.ini")).unwrap();
        let including = format!("{including}%include {}\n", mount.path("more.ini").display());
        let pooler = ini.start().await;
        replace(&ini.dir().join("pooler.ini"), including);
        wait_setting(&pooler, "default_pool_size", "7").await;
        let may_log_in = async |user: &str| {
            let password = format!("{user}_pw");
            let login = Conn::try_login(pooler.port, user, "p", Some(&password));
            login.await.is_ok()
        };
        assert!(may_log_in("u_plain").await);
        mount.swap(&[("users", &one), ("more.ini", "default_pool_size = 8\n")]);
        wait_setting(&pooler, "default_pool_size", "8").await;
        assert!(!may_log_in("u_plain").await, "a user who is gone");
        assert!(may_log_in("u_md5").await);
        let log = pooler.log();
        let named = format!(
            "{CHANGED}{}, {}",
            mount.path("more.ini").display(),
            mount.path("users").display()
        );
        assert!(log.contains(&named), "{log}");
        assert!(!log.contains(REFUSED), "{log}");
    })
    .await;
}

#[tokio::test]
async fn a_bad_version_is_tried_once_and_the_next_good_one_is_taken() {
    bounded(90, async {
        let mut ini = watching().await;
        let pooler = ini.set("default_pool_size", 5).start().await;
        let path = ini.dir().join("pooler.ini");
        let good = std::fs::read_to_string(&path).unwrap();
        replace(
            &path,
            good.replace("default_pool_size = 5", "default_pool_size = many"),
        );
        wait_refused(&pooler, 1).await;
        assert!(
            pooler
                .log()
                .contains("invalid value \"many\" for parameter default_pool_size")
        );
        let mut client = pooler.client("u_trust", "p").await;
        client.ok("SELECT 1").await;
        // Without the first change there would be nothing to do for the second.
        replace(
            &path,
            good.replace("default_pool_size = 5", "default_pool_size = 6"),
        );
        wait_setting(&pooler, "default_pool_size", "6").await;
        // What was refused was not tried again meanwhile.
        assert_eq!(pooler.log().matches(CHANGED).count(), 2);
        client.ok("SELECT 1").await;
        // Nor is a reload by hand repeated.
        replace(
            &path,
            good.replace("default_pool_size = 5", "default_pool_size = 9"),
        );
        wait_setting(&pooler, "default_pool_size", "9").await;
    })
    .await;
}

#[tokio::test]
async fn a_file_is_written_in_place_and_in_two_parts() {
    bounded(90, async {
        let mut ini = watching().await;
        let pooler = ini.set("default_pool_size", 5).start().await;
        let path = ini.dir().join("pooler.ini");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("default_pool_size = 5", "default_pool_size = 6");
        let (first, second) = text.split_at(text.find("_pool_size = 6").unwrap());
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.write_all(first.as_bytes()).unwrap();
        file.write_all(second.as_bytes()).unwrap();
        wait_setting(&pooler, "default_pool_size", "6").await;
    })
    .await;
}

#[tokio::test]
async fn certificates_are_changed_one_file_after_the_other() {
    bounded(90, async {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let mut ini = watching().await;
        use_tls(&mut ini, &old, "require");
        let pooler = ini.start().await;
        let trusting =
            |authority: &Authority| -> Arc<ClientConfig> { client_config(authority, None, &[]) };
        let mut before = over_tls(&pooler, trusting(&old)).await.unwrap();
        before.log_in("u_trust", "p", None).await;
        let pair = new.server_cert();
        replace(&ini.dir().join("c.crt"), &pair.cert_pem);
        wait_refused(&pooler, 1).await;
        assert!(pooler.log().contains("does not belong to certificate"));
        over_tls(&pooler, trusting(&old))
            .await
            .expect("the old pair stays in use");
        replace(&ini.dir().join("c.key"), &pair.key_pem);
        wait_until("the new certificate", || async {
            over_tls(&pooler, trusting(&new)).await.is_ok()
        })
        .await;
        assert!(over_tls(&pooler, trusting(&old)).await.is_err());
        before.ok("SELECT 'goes on'").await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_auth_file_is_as_good_as_the_last_one() {
    bounded(90, async {
        let mut ini = watching().await;
        let pooler = ini.set("auth_type", "md5").start().await;
        let path = ini.dir().join("users.txt");
        let users = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        wait_refused(&pooler, 1).await;
        let mut client = Conn::login(pooler.port, "u_md5", "p", Some("u_md5_pw")).await;
        client.ok("SELECT 1").await;
        replace(&path, users.replace("u_md5_pw", "another_pw"));
        wait_until("the new password", || async {
            let login = Conn::try_login(pooler.port, "u_md5", "p", Some("another_pw"));
            login.await.is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn it_can_be_switched_on_and_off() {
    bounded(90, async {
        let (_, _, mut ini) = setup().await;
        let pooler = ini.set("default_pool_size", 5).start().await;
        let path = ini.dir().join("pooler.ini");
        let text = std::fs::read_to_string(&path).unwrap();
        let sized = |size: &str| {
            text.replace(
                "default_pool_size = 5",
                &format!("default_pool_size = {size}"),
            )
        };
        let command = format!("SET reload_watch = '{OFTEN}'");
        assert_eq!(pooler.console(&command).await.error_text(), None);
        // The file has nothing about watching, which ends with the reload that it makes.
        replace(&path, sized("6"));
        wait_setting(&pooler, "default_pool_size", "6").await;
        wait_setting(&pooler, "reload_watch", "0").await;
        // A reload by hand switches it on, and is not repeated by it.
        replace(&path, sized("7") + &format!("reload_watch = {OFTEN}\n"));
        assert_eq!(pooler.console("RELOAD").await.error_text(), None);
        replace(&path, sized("8") + &format!("reload_watch = {OFTEN}\n"));
        wait_setting(&pooler, "default_pool_size", "8").await;
        assert_eq!(pooler.log().matches(CHANGED).count(), 2);
    })
    .await;
}
