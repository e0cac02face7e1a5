use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Reads the first of these files, which may include the others.
fn load(files: &[(&str, &str)]) -> Result<Hba, Vec<String>> {
    let map: HashMap<&Path, &str> = files
        .iter()
        .map(|(name, text)| (Path::new(*name), *text))
        .collect();
    let mut read = |path: &Path| match map.get(path) {
        Some(text) => Ok(text.as_bytes().to_vec()),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let maps = IdentMaps::parse(b"m os ann\nm2 os bob\n", Path::new("ident")).unwrap();
    let loaded = Hba::load(Path::new(files[0].0), Some(&maps), &mut read);
    loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn rules(text: &str) -> Hba {
    load(&[("hba", text)]).unwrap()
}

fn origin(text: &str) -> Origin {
    match text.split_once(' ') {
        None if text == "unix" => Origin::Local,
        None => Origin::Tcp {
            address: text.parse().unwrap(),
            tls: false,
        },
        Some((address, _)) => Origin::Tcp {
            address: address.parse().unwrap(),
            tls: true,
        },
    }
}

/// The line of the rule that fits `database/user` from there; a database `*x` means physical replication.
fn line(hba: &Hba, who: &str, from: &str) -> Option<usize> {
    let (database, user) = who.split_once('/').unwrap();
    let caller = Caller {
        origin: origin(from),
        database: database.trim_start_matches('*').as_bytes(),
        user: user.as_bytes(),
        replication: database.starts_with('*'),
    };
    hba.find(&caller).map(|rule| rule.line)
}

#[track_caller]
fn check(text: &str, expected: &[(&str, &str, Option<usize>)]) {
    let hba = rules(text);
    for (who, from, expected) in expected {
        assert_eq!(line(&hba, who, from), *expected, "{who} from {from}");
    }
}

#[test]
fn where_a_client_comes_from() {
    let text = "local all all trust\nhostssl all all 10.0.0.0/8 trust\nhostnossl all all 10.0.0.0/8 reject\nhost all all ::1/128 md5\n";
    check(
        text,
        &[
            ("d/u", "unix", Some(1)),
            ("d/u", "10.0.0.1 tls", Some(2)),
            ("d/u", "10.0.0.1", Some(3)),
            ("d/u", "::ffff:10.0.0.1", Some(3)),
            ("d/u", "::1 tls", Some(4)),
            ("d/u", "::1", Some(4)),
            ("d/u", "11.0.0.1", None),
            ("d/u", "::2", None),
        ],
    );
    check("host all all all trust", &[("d/u", "unix", None)]);
    assert!(rules(text).rules()[0].is_local() && !rules(text).rules()[3].is_local());
}

#[test]
fn databases_and_users() {
    let text = "local a,b ann reject\nlocal sameuser all md5\nlocal \"sameuser\",\"all\" \"all\" trust\n\
                local replication rep trust\nlocal all eve trust\nlocal \"replication\" all trust\nlocal x replication trust";
    check(
        text,
        &[
            ("a/ann", "unix", Some(1)),
            ("b/ann", "unix", Some(1)),
            ("c/ann", "unix", None),
            ("A/ann", "unix", None),
            ("ann/ann", "unix", Some(2)),
            ("sameuser/all", "unix", Some(3)),
            ("all/all", "unix", Some(2)),
            ("sameuser/bob", "unix", None),
            ("x/rep", "unix", None),
            ("*x/rep", "unix", Some(4)),
            ("*rep/rep", "unix", Some(4)),
            ("*x/eve", "unix", None),
            ("*replication/bob", "unix", None),
            ("replication/bob", "unix", Some(6)),
            ("x/replication", "unix", Some(7)),
            ("pgbouncer/eve", "unix", Some(5)),
        ],
    );
}

#[test]
fn the_first_rule_that_fits_counts() {
    let text = "\n# order\nhost all bob 10.0.0.0/8 reject\nhost all all 10.0.0.0/8 trust\nhost all bob 0.0.0.0/0 trust\n";
    check(
        text,
        &[
            ("d/bob", "10.1.1.1", Some(3)),
            ("d/ann", "10.1.1.1", Some(4)),
            ("d/bob", "9.1.1.1", Some(5)),
        ],
    );
    assert!(rules("").rules().is_empty());
}

fn ldap(options: &str) -> Method {
    Method::Ldap(Arc::new(LdapOptions::parse(options).unwrap()))
}

#[test]
fn methods_and_options() {
    let text = "local all all trust\nlocal all all reject\nlocal all all md5\nlocal all all password\n\
                local all all scram-sha-256\nlocal all all peer\nlocal all all peer map=m\nhost all all all cert \"map=m2\"\n\
                host all all all cert map=\"m\" # c\nhost all all 10.0.0.0 255.0.0.0 ldap ldapserver=a,ldapsuffix=\", dc=x\" # c\n";
    let hba = rules(text);
    let found: Vec<_> = hba
        .rules()
        .iter()
        .map(|rule| (rule.method.clone(), rule.map.as_ref().map(|map| map.name())))
        .collect();
    assert_eq!(
        found,
        [
            (Method::Trust, None),
            (Method::Reject, None),
            (Method::Md5, None),
            (Method::Plain, None),
            (Method::ScramSha256, None),
            (Method::Peer, None),
            (Method::Peer, Some("m")),
            (Method::Cert, Some("m2")),
            (Method::Cert, Some("m")),
            (ldap("ldapserver=a ldapsuffix=\", dc=x\""), None),
        ]
    );
}

#[test]
fn every_broken_line_is_named_and_nothing_is_skipped() {
    for (text, fault) in [
        (
            "HOST all all all trust",
            "\"HOST\" is not one of local, host, hostssl, hostnossl",
        ),
        (
            "hostgssenc all all all trust",
            "\"hostgssenc\" is not supported",
        ),
        ("include other", "\"include\" is not supported"),
        (
            "\"local\" all all trust",
            "\"local\" is not one of local, host, hostssl, hostnossl",
        ),
        ("local", "a database is missing"),
        ("local all", "a user is missing"),
        ("local all all", "an authentication method is missing"),
        ("host all all", "an address is missing"),
        (
            "host all all trust",
            "\"trust\" is no IP address; host names, samehost and samenet are not supported",
        ),
        (
            "host all all 10.0.0.1 reject",
            "the mask is missing: write 10.0.0.1/32 for one address",
        ),
        ("local all all rejct", "unsupported method: \"rejct\""),
        ("local all all Reject", "unsupported method: \"Reject\""),
        ("local all all ident", "unsupported method: \"ident\""),
        ("local all all pam", "unsupported method: \"pam\""),
        ("local all all any", "unsupported method: \"any\""),
        (
            "local all all trust,md5",
            "a list cannot stand here: \"trust\", ...",
        ),
        ("local all all trust map=m", "\"trust\" takes no options"),
        (
            "local all all peer map=none",
            "there is no ident map \"none\"",
        ),
        ("local all all peer map=", "there is no ident map \"\""),
        (
            "local all all peer map=m map=m",
            "map=NAME is the only option",
        ),
        (
            "host all all all cert clientcert=verify-full",
            "unsupported option: \"clientcert\"",
        ),
        (
            "local samerole all trust",
            "samerole and samegroup are not supported: \"samerole\"",
        ),
        ("local all +g trust", "groups are not supported: \"+g\""),
        (
            "local all /^a trust",
            "regular expressions are not supported: \"/^a\"",
        ),
        (
            "local /^a all trust",
            "regular expressions are not supported: \"/^a\"",
        ),
        (
            "local ALL all trust",
            "\"ALL\": write the keyword as all, or a name in quotes",
        ),
        (
            "local SameUser all trust",
            "\"SameUser\": write the keyword as sameuser, or a name in quotes",
        ),
        (
            "local all All reject",
            "\"All\": write the keyword as all, or a name in quotes",
        ),
        (
            "local all sameuser reject",
            "sameuser is for databases; a user of this name is to be written in quotes",
        ),
        ("local all a\"ll\" trust", "\"all\" is partly in quotes"),
        ("local all @ trust", "@ without a file name"),
        (
            "local all @none trust",
            "could not open none: entity not found",
        ),
        ("local a ,b all trust", "misplaced comma"),
        (
            "local all all trust \\",
            "a line cannot be continued with \\ in the next one",
        ),
        (
            "local all \"all trust",
            "quotes are not closed on the same line",
        ),
    ] {
        let problems = load(&[("hba", &format!("local all all reject\n{text}\n"))]).unwrap_err();
        assert_eq!(problems, [format!("{fault} (hba:2)")], "{text}");
    }
    let two = load(&[("hba", "locl\nlocal all all trust\nx\n")]).unwrap_err();
    assert_eq!(two.len(), 2, "{two:?}");
    assert!(two[0].ends_with("(hba:1)") && two[1].ends_with("(hba:3)"));
}

#[test]
fn options_are_never_shown() {
    for line in [
        "host all all all ldap ldapbindpasswd=\"hunter2",
        "host all all all cert password=hunter2",
        "host all all all md5 hunter2",
        "host all all all ldap ldapserver=h ldapbasedn=x ldapbindpasswd=a,hunter2",
    ] {
        let problems = load(&[("hba", line)]).unwrap_err();
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    let hba = rules("host all all all ldap ldapserver=h ldapbasedn=x ldapbindpasswd=hunter2");
    assert!(!format!("{hba:?}").contains("hunter2"));
}

#[test]
fn names_in_files() {
    let files = [
        (
            "/etc/hba",
            "local @dbs,extra @users/ops reject\nlocal all @\"/abs\" md5\n",
        ),
        ("/etc/dbs", "# databases\na b, c\n\nsameuser\n"),
        ("/etc/users/ops", "ann\n@more # and\n"),
        ("/etc/users/more", "bob \"@all\""),
        ("/abs", "all"),
    ];
    // The second rule's name is partly in quotes, which is no inclusion.
    let problems = load(&files).unwrap_err();
    assert_eq!(problems, ["\"@/abs\" is partly in quotes (/etc/hba:2)"]);
    let text = files[0].1.replace('"', "");
    let hba = load(&[&[("/etc/hba", &*text)], &files[1..]].concat()).unwrap();
    for (who, expected) in [
        ("a/ann", 1),
        ("c/bob", 1),
        ("extra/bob", 1),
        ("bob/bob", 1),
        ("b/@all", 1),
        ("d/bob", 2),
        ("a/eve", 2),
    ] {
        assert_eq!(line(&hba, who, "unix"), Some(expected), "{who}");
    }
}

#[test]
fn mistakes_in_included_files_are_told_with_their_place() {
    let files = [
        (
            "d/hba",
            "local all @names trust\nlocal all @missing trust\n",
        ),
        ("d/names", "ann\n+group\n@gone\n"),
    ];
    let expected = [
        "groups are not supported: \"+group\" (d/names:2)",
        "could not open d/gone: entity not found (d/names:3)",
        "could not open d/missing: entity not found (d/hba:2)",
    ];
    assert_eq!(load(&files).unwrap_err(), expected);
}

#[test]
fn inclusions_have_an_end() {
    let deep = load(&[
        ("hba", "local all @self trust"),
        ("self", "@self @self\n@self"),
    ])
    .unwrap_err();
    assert!(
        deep.len() > 1 && deep.iter().any(|problem| problem.contains("too deeply")),
        "{deep:?}"
    );
    let wide = "@n ".repeat(HBA_FILES_MAX);
    let many = load(&[("hba", "local all @w trust"), ("w", &wide), ("n", "a")]).unwrap_err();
    assert!(
        many[0].contains("too many files are included (w:1)"),
        "{many:?}"
    );
    let large = " ".repeat(HBA_BYTES_MAX / 2);
    let big = load(&[
        ("hba", "local all @l trust\nlocal all @l trust"),
        ("l", &large),
    ])
    .unwrap_err();
    assert_eq!(big, ["the file and what it includes are too large (hba:2)"]);
}

#[test]
fn a_missing_file_is_a_problem() {
    let mut read = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let problems = Hba::load(Path::new("hba"), None, &mut read).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "could not open hba: permission denied (hba)"
    );
}

#[test]
fn without_maps_nobody_is_let_in_by_one() {
    let mut read = |_: &Path| Ok(b"local all all peer map=m".to_vec());
    let hba = Hba::load(Path::new("hba"), None, &mut read).unwrap();
    let map = hba.rules()[0].map.as_ref().unwrap();
    assert!(!map.permits(b"os", b"ann") && !map.permits(b"", b""));
}

/// A rule of the naive model: what is written, and nothing precomputed.
#[derive(Clone, Debug)]
struct Model {
    kind: &'static str,
    database: &'static str,
    user: &'static str,
    /// Network and bits; `None` for `all`.
    net: Option<(u8, u8)>,
}

impl Model {
    fn text(&self) -> String {
        let address = match (self.kind, self.net) {
            ("local", _) => String::new(),
            (_, None) => "all".to_owned(),
            (_, Some((net, bits))) => format!("10.0.0.{net}/{bits}"),
        };
        format!(
            "{} {} {} {address} trust\n",
            self.kind, self.database, self.user
        )
    }

    fn fits(&self, database: &str, user: &str, from: &str, last: u8) -> bool {
        let kind = match self.kind {
            "local" => from == "unix",
            "host" => from != "unix",
            "hostssl" => from == "tls",
            _ => from == "plain",
        };
        let replication = database.starts_with('*');
        let database = match self.database {
            "replication" => replication,
            _ if replication => false,
            "all" => true,
            "sameuser" => database == user,
            list => list.split(',').any(|name| name == database),
        };
        let address = self.kind == "local"
            || self.net.is_none_or(|(net, bits)| {
                u32::from(net) >> (32 - bits) == u32::from(last) >> (32 - bits)
            });
        kind && database
            && address
            && (self.user == "all" || self.user.split(',').any(|name| name == user))
    }
}

fn model() -> impl Strategy<Value = Model> {
    let kind = prop::sample::select(vec!["local", "host", "hostssl", "hostnossl"]);
    let database = prop::sample::select(vec!["all", "a", "b,a", "sameuser", "replication"]);
    let user = prop::sample::select(vec!["all", "a", "b", "a,b"]);
    let net = prop::option::of(
        (0..8u8, 29..=32u8).prop_map(|(net, bits)| (net >> (32 - bits) << (32 - bits), bits)),
    );
    (kind, database, user, net).prop_map(|(kind, database, user, net)| Model {
        kind,
        database,
        user,
        net,
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let mut read = |_: &Path| Ok(bytes.clone());
        let _ = Hba::load(Path::new("f"), None, &mut read);
    }

    #[test]
    fn first_match_wins_as_in_the_model(
        model in prop::collection::vec(model(), 0..8),
        database in prop::sample::select(vec!["a", "b", "c", "*a"]),
        user in prop::sample::select(vec!["a", "b", "c"]),
        from in prop::sample::select(vec!["unix", "plain", "tls"]),
        last in 0..8u8,
    ) {
        let text: String = model.iter().map(Model::text).collect();
        let expected = model.iter().position(|rule| rule.fits(database, user, from, last)).map(|at| at + 1);
        let from = match from {
            "unix" => from.to_owned(),
            "tls" => format!("10.0.0.{last} tls"),
            _ => format!("10.0.0.{last}"),
        };
        prop_assert_eq!(line(&rules(&text), &format!("{database}/{user}"), &from), expected, "{}", text);
    }
}
