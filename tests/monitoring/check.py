"""Checks of config/monitoring, for tests/monitoring.sh: one line `ok NAME` or `FAIL NAME: reason` for each.

  check.py files                     alerts, their tests and their documentation fit together; dashboards are well formed
  check.py prepare FOLDER TARGETS    a copy of the configuration for a live run: own targets (JSON: job to addresses), short times
  check.py expressions URL           every expression of every dashboard and alert, asked of a running Prometheus
  check.py alert URL NAME STATE      waits until the alert is in a state (pending, firing, gone)
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "monitoring"
RULES = sorted((CONFIG / "rules").glob("*.yml"))
DASHBOARDS = sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
SEVERITIES = {"critical", "warning", "info"}
COLUMNS = 24

LIVE_SECONDS_MAX = 60
"""How long what is asked of a running Prometheus may take to be so."""
SHORT_FOR = "2s"
"""In a live run, how long a condition has to hold before an alert fires."""

MAY_BE_EMPTY = {
    # Expression (as it is asked) contains: why there may be no data in a healthy set-up.
    "postgres_tls_certificate_expiry": "told by whoever watches PostgreSQL's certificate files",
    "changes(": "annotations: only at the moment itself",
    "last_vacuum_timestamp_seconds": "only tables that have been vacuumed",
    'errors_total{instance=~".*"}[10s])) > 0': "only kinds that occur are drawn",
    "pgbouncer_databases_max_connections": "only databases with max_db_connections",
}

_failed = 0


def report(name, problems):
    """One check's line; `problems` is a list of texts."""
    global _failed
    if problems:
        _failed += 1
        print(f"FAIL {name}: {'; '.join(problems)[:2000]}", flush=True)
    else:
        print(f"ok {name}", flush=True)


# -- files


def rules():
    """Every rule, with the name of its file."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield path.stem, rule


def alerts():
    return [(file, rule) for file, rule in rules() if "alert" in rule]


def anchors(markdown):
    """The anchors of a page's headings, as the usual renderers make them."""
    titles = re.findall(r"^#+ (.+)$", markdown, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def check_alert(rule, tests, sections):
    name, problems = rule["alert"], []
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        problems.append("no severity")
    notes = rule.get("annotations", {})
    problems += [f"no {key}" for key in ("summary", "description", "runbook") if not notes.get(key)]
    page, _, anchor = notes.get("runbook", "").partition("#")
    if page != "docs/alerts.md" or anchor not in sections:
        problems.append(f"its runbook {notes.get('runbook')} is not there")
    mine = [test for test in tests if test["name"] == name]
    looks = [look for test in mine for look in test["alert_rule_test"] if look["alertname"] == name]
    fires = [i for i, look in enumerate(looks) if look.get("exp_alerts")]
    if not fires or fires[0] == 0 or fires[-1] == len(looks) - 1:
        problems.append("its unit test does not see it quiet, firing and quiet again")
    pending = [look for test in mine for look in test.get("promql_expr_test", []) if 'alertstate="pending"' in look["expr"]]
    if rule.get("for") and not pending:
        problems.append("its unit test does not see it pending")
    report(f"alert {name}", problems)


def check_alerts():
    page = (ROOT / "docs" / "alerts.md").read_text()
    sections = anchors(page)
    tests = {path.stem: yaml.safe_load((Path(__file__).parent / path.name).read_text())["tests"] for path in RULES}
    names = [rule["alert"] for _, rule in alerts()]
    for file, rule in alerts():
        check_alert(rule, tests[file], sections)
    written = set(re.findall(r"\b(?:Pgweir|Postgresql|Backup|RestoreTest)[A-Z]\w+", page))
    report("docs/alerts.md tells of all alerts, and of no others", [f"{name}?" for name in sorted(written ^ set(names))])
    report("names of alerts are unique", [name for name in set(names) if names.count(name) > 1])


def overlaps(a, b):
    return a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]


def panel_problems(panel):
    title, data_source = panel.get("title") or f"panel {panel['id']}", {"type": "prometheus", "uid": "${datasource}"}
    if not panel.get("title"):
        yield f"{title}: no title"
    if panel["type"] == "row":
        return
    if not panel.get("description"):
        yield f"{title}: no description"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield f"{title}: no unit"
    if not panel.get("targets"):
        yield f"{title}: asks nothing"
    for asked in [panel, *panel["targets"]]:
        if asked.get("datasource") != data_source:
            yield f"{title}: not the chosen data source"
    if len({target["refId"] for target in panel["targets"]}) < len(panel["targets"]):
        yield f"{title}: refId twice"


def check_dashboard(path):
    board = json.loads(path.read_text())
    panels, problems = board["panels"], []
    for panel in panels:
        problems += panel_problems(panel)
    places = [(panel["title"], panel["gridPos"]) for panel in panels]
    problems += [f"{title}: beyond the edge" for title, place in places if place["x"] < 0 or place["x"] + place["w"] > COLUMNS]
    for i, (title, place) in enumerate(places):
        problems += [f"{title} lies over {other}" for other, there in places[:i] if overlaps(place, there)]
    for what in ("id", "title"):
        values = [panel[what] for panel in panels]
        problems += [f"{what} {value} twice" for value in set(values) if values.count(value) > 1]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        problems.append("no variable for the data source")
    text = json.dumps([panels, board["annotations"], board["templating"]])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__interval", "__range"}
    problems += [f"${name} is used and not declared, or the other way round" for name in used ^ set(variables)]
    if not board.get("uid") or not board.get("title") or not board.get("description"):
        problems.append("no uid, title or description")
    report(f"dashboard {path.stem}: {len(panels)} panels", problems)


def check_files():
    check_alerts()
    for path in DASHBOARDS:
        check_dashboard(path)
    uids = [json.loads(path.read_text())["uid"] for path in DASHBOARDS]
    report("every dashboard has a uid of its own", [] if len(set(uids)) == len(uids) else uids)
    for path in sorted((CONFIG / "grafana" / "provisioning").rglob("*.yml")):
        report(f"provisioning of {path.parent.name}", [] if yaml.safe_load(path.read_text())["apiVersion"] == 1 else ["apiVersion"])


# -- a copy for a live run


def prepare(folder, targets):
    """What is delivered, with the targets of this run, looked at every second, and with alerts that need not be awaited for minutes."""
    folder = Path(folder)
    config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    del config["alerting"]
    jobs = [job for job in config["scrape_configs"] if job["job_name"] in targets]
    for job in jobs:
        for key in ("scrape_interval", "scrape_timeout"):
            job.pop(key, None)
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
        if job["job_name"] == "backup":
            job["metrics_path"] = "/backup.txt"
    config["scrape_configs"] = jobs
    (folder / "rules").mkdir(parents=True)
    for path in RULES:
        content = yaml.safe_load(path.read_text())
        for group in content["groups"]:
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = SHORT_FOR
        (folder / "rules" / path.name).write_text(yaml.safe_dump(content))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))


# -- a running Prometheus


def get(url, path, **parameters):
    """The `data` of an answer, or an exception with Prometheus' own words."""
    request = f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error).get("error", str(error))) from None


def ask(url, expression):
    result = get(url, "query", query=expression)
    if result["resultType"] != "vector":
        raise ValueError(f"a {result['resultType']}")
    return [sample["metric"] for sample in result["result"]]


def wait(condition, what):
    """Until `condition` returns no problem; returns the last one, or none."""
    deadline = time.monotonic() + LIVE_SECONDS_MAX
    while True:
        try:
            problem = condition()
        except OSError as error:
            problem = f"{what}: {error}"
        if not problem or time.monotonic() > deadline:
            return problem
        time.sleep(0.5)


def wait_all(conditions):
    """Until none of the named conditions returns a problem; returns those that are left."""
    problems = {}

    def left():
        for name in list(conditions):
            problems.pop(name, None)
            if problem := conditions[name]():
                problems[name] = f"{name}: {problem}"
            else:
                del conditions[name]
        return conditions

    wait(left, "expressions")
    return list(problems.values())


def concrete(text):
    """An expression of a dashboard as Grafana would ask it with everything chosen."""
    text = text.replace("$__rate_interval", "10s").replace("$__interval", "10s").replace("$__range", "1m")
    return re.sub(r"\$\{?\w+\}?", ".*", text)


def may_be_empty(expression):
    return any(part in expression for part in MAY_BE_EMPTY)


def expression_problem(url, expression, legend):
    try:
        series = ask(url, expression)
    except ValueError as error:
        return str(error)
    if not series:
        return None if may_be_empty(expression) else "no data"
    wanted = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))
    lacking = wanted - set.union(*map(set, series)) - {"__name__"}
    return f"no label {', '.join(sorted(lacking))}" if lacking else None


def dashboard_expressions(board):
    """Everything a dashboard asks: (where, expression, legend)."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], concrete(target["expr"]), target["legendFormat"]
    for note in board["annotations"]["list"]:
        yield note["name"], concrete(note["expr"]), note["textFormat"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            yield variable["name"], concrete(series), "{{" + label + "}}"


SELECTOR = re.compile(r"(?<![\w:\"])((?:pgweir|pgbouncer|postgres|process|pg|backup|up)(?:[_:][a-z0-9_:]+)?)(\{[^}]*\})?")


def selectors(expression):
    """What an expression reads: metrics with their matchers, without words in quotes or lists of labels."""
    bare = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", "", expression)
    for name, matchers in SELECTOR.findall(bare):
        yield name + matchers


def selectors_problem(url, expression):
    """An alert's expression is empty while all is well; but it must parse, and everything it reads must be there."""
    try:
        ask(url, expression)
        empty = [part for part in selectors(expression) if not may_be_empty(part) and not ask(url, part)]
    except ValueError as error:
        return f"{expression}: {error}"
    return f"no data: {', '.join(empty)}" if empty else None


def check_expressions(url):
    def all_up():
        down = [t["scrapeUrl"] + " " + t["lastError"] for t in get(url, "targets")["activeTargets"] if t["health"] != "up"]
        return f"down: {', '.join(down)}" if down or not get(url, "targets")["activeTargets"] else None

    problem = wait(all_up, "targets")
    report("every target is up", [problem] if problem else [])
    for path in DASHBOARDS:
        asked = list(dashboard_expressions(json.loads(path.read_text())))
        problems = wait_all({f"{title}: {expression}": partial(expression_problem, url, expression, legend) for title, expression, legend in asked})
        report(f"dashboard {path.stem}: {len(asked)} expressions have data", problems)
    for file in sorted({file for file, _ in rules()}):
        mine = [rule for name, rule in rules() if name == file]
        problems = wait_all({rule.get("alert") or rule["record"]: partial(selectors_problem, url, rule["expr"]) for rule in mine})
        report(f"rules {file}: what {len(mine)} expressions read is there", problems)
        groups = [group for group in get(url, "rules")["groups"] if group["file"].endswith(f"{file}.yml")]
        ill = [f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule["health"] == "err"]
        report(f"rules {file}: Prometheus evaluates all of them", ill if groups else ["none loaded"])


def check_alert_state(url, name, state):
    def in_state():
        found = [alert for alert in get(url, "alerts")["alerts"] if alert["labels"]["alertname"] == name]
        if state == "gone":
            return f"still {found}" if found else None
        for alert in found:
            if alert["state"] in (state, "firing"):
                print(f"# {name}: {alert['annotations']['summary']}. {alert['annotations']['description']}")
                return None
        return f"not {state}: {found}"

    problem = wait(in_state, "alerts")
    report(f"alert {name}: {state}", [problem] if problem else [])


def main():
    command, *arguments = sys.argv[1:] or ["help"]
    if command == "files" and not arguments:
        check_files()
    elif command == "prepare" and len(arguments) == 2:
        prepare(arguments[0], json.loads(arguments[1]))
    elif command == "expressions" and len(arguments) == 1:
        check_expressions(*arguments)
    elif command == "alert" and len(arguments) == 3:
        check_alert_state(*arguments)
    else:
        sys.exit(__doc__)
    sys.exit(1 if _failed else 0)


main()
