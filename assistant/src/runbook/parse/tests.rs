use proptest::prelude::*;

use super::*;
use crate::runbook::{End, Role, Verdict};

fn parse_clean(source: &str) -> Runbook {
    let (runbook, warnings) = parse("folder/page", "runbooks/folder/page.md", source.to_owned());
    assert_eq!(warnings, []);
    runbook
}

fn warnings(source: &str) -> Vec<String> {
    let (_, warnings) = parse("page", "page.md", source.to_owned());
    warnings.iter().map(ToString::to_string).collect()
}

const FULL: &str = r#"---
title: DNS answers SERVFAIL
alerts: [CoreDNSErrorsHigh]
labels: {team: network, tier: 1}
hugo_key: whatever
failure_modes:
  - id: dns-servfail
    title: The resolver answers SERVFAIL
    summary: It cannot resolve.
    explains: [dns-slow]
    evidence:
      - id: servfail-ratio
        role: requires
        title: Share of SERVFAIL
        expr: |
          rate(a[5m]) > 0.01
        unit: ratio
        weight: 2
        at: dst
        group: g
symptoms:
  - id: failing
    expr: up == 0
---
Before any heading.

# DNS answers SERVFAIL

## Meaning

Words.

## Diagnosis

```sh
# not a heading
dig
```
"#;

#[test]
fn a_full_page() {
    let page = parse_clean(FULL);
    assert_eq!(page.title, "DNS answers SERVFAIL");
    assert_eq!(page.alerts, ["CoreDNSErrorsHigh"]);
    assert_eq!(page.labels["tier"], "1");
    assert_eq!(page.symptoms[0].id, "failing");

    let mode = &page.failure_modes[0];
    assert_eq!((mode.anchor.as_str(), mode.prior), ("meaning", 0.05));
    assert_eq!(mode.verdict, Verdict::Fault);
    let evidence = &mode.evidence[0];
    assert_eq!((evidence.role, evidence.at), (Role::Requires, End::Dst));
    assert_eq!(evidence.group.as_deref(), Some("g"));

    let places: Vec<_> = page
        .sections
        .iter()
        .map(|s| {
            (
                s.anchor.as_str(),
                s.level,
                s.line_start,
                s.line_end,
                s.heading_path.join(" > "),
            )
        })
        .collect();
    let title = "DNS answers SERVFAIL";
    assert_eq!(
        places,
        [
            ("top", 0, 25, 25, title.to_owned()),
            ("dns-answers-servfail", 1, 27, 27, title.to_owned()),
            ("meaning", 2, 29, 31, format!("{title} > Meaning")),
            ("diagnosis", 2, 33, 38, format!("{title} > Diagnosis")),
        ]
    );
    assert_eq!(page.sections[2].text, "Words.");
    assert_eq!(page.sections[2].text_line, 31);
    assert!(page.body().starts_with("Before any"));
}

#[test]
fn titles_fall_back_from_front_matter_to_headings_to_the_file() {
    for (source, title) in [
        ("---\ntitle: T\n---\n# H\n", "T"),
        ("# H\n", "H"),
        ("## Second *level* `code`\n", "Second level code"),
        ("no heading at all", "page"),
        ("", "page"),
        ("Setext\n===\n", "Setext"),
    ] {
        assert_eq!(parse_clean(source).title, title, "{source:?}");
    }
}

#[test]
fn anchors_are_unique_and_explicit_ones_are_kept() {
    let page = parse_clean("# A\n## B\n## B\n## C {#see-me}\n> ## B\n\n## B\n");
    let anchors: Vec<_> = page.sections.iter().map(|s| s.anchor.as_str()).collect();
    assert_eq!(anchors, ["a", "b", "b-1", "see-me", "b-3"]);
    assert_eq!(
        heading_anchors(&page),
        ["a", "b", "b-1", "see-me", "b-2", "b-3"]
    );
}

/// An anchor goes into the header that leads an alert to its section, where none of these may stand.
#[test]
fn an_anchor_has_no_control_characters() {
    let page = parse_clean("# A {#a\u{1}b\u{7f}}\n## B {#\u{1}}\n");
    assert_eq!(heading_anchors(&page), ["ab", "section"]);
}

#[test]
fn windows_line_ends_and_byte_order_marks_do_no_harm() {
    let page = parse_clean("\u{feff}---\r\ntitle: T\r\n---\r\n# H\r\n\r\ntext\r\n");
    assert_eq!(page.title, "T");
    assert_eq!(
        (page.sections[0].line_start, page.sections[0].line_end),
        (4, 6)
    );
}

#[test]
fn warnings_name_file_and_line() {
    for (source, expected) in [
        (
            "---\nalerts: {a: b}\n---\n",
            "page.md:2: front matter: `alerts` must be a list of alert names; it was ignored",
        ),
        (
            "---\na: b\n# no end\n",
            "page.md:1: front matter has no closing `---`: it was read as text",
        ),
        (
            "---\nfailure_modes:\n  - {id: ok, title: T}\n  - id: Bad\n    title: T\n---\n# H\n",
            "page.md:4: failure mode `Bad`: `id` must be kebab-case: lower-case letters, digits and single hyphens",
        ),
        (
            "---\nfailure_modes:\n  - id: x\n    title: T\n    anchor: nowhere\n---\n# H\n",
            "page.md:3: failure mode `x`: no heading on this page has the anchor `nowhere`",
        ),
    ] {
        assert_eq!(warnings(source), [expected]);
    }
    let unknown_key = warnings("---\nfailure_modes:\n- id: x\n  title: T\n  sumary: S\n---\n");
    assert!(unknown_key[0].starts_with(
        "page.md:3: front matter: `failure_modes[0]` was ignored: unknown field `sumary`"
    ));
    let bad_yaml = warnings("---\ntitle: T\nalerts: [\n---\n");
    assert!(
        bad_yaml[0].starts_with("page.md:") && bad_yaml[0].contains("not valid YAML"),
        "{bad_yaml:?}"
    );
    assert!(warnings("---\n\nA page that begins with a rule.\n").is_empty());
}

#[test]
fn text_between_two_rules_is_no_front_matter() {
    let page = parse_clean("---\n# The title\n\nSee https://x.y for more.\n\n---\n\nEnd.\n");
    assert_eq!(page.title, "The title");
    assert!(
        page.sections
            .iter()
            .any(|section| section.text.starts_with("See https"))
    );
    assert_eq!(parse_clean("---\n# none yet\n\n---\n").title, "none yet");
    assert_eq!(parse_clean("---\n\n---\n# T\n").sections[0].line_start, 4);
}

#[test]
fn front_matter_may_be_toml() {
    let page = parse_clean(
        "+++\ntitle = 'DNS faults'\ndate = 2026-11-20T03:10:00Z\ndraft = false\nalerts = ['CoreDNSDown']\n\n[labels]\nteam = 'network'\ntier = 1\n\n\
         [[failure_modes]]\nid = 'dns'\ntitle = 'No answer'\n\n[[failure_modes.evidence]]\nid = 'e'\nrole = 'requires'\nexpr = '''\nup > 0\n'''\n+++\n# H\n\ntext\n",
    );
    assert_eq!(
        (page.title.as_str(), &*page.alerts),
        ("DNS faults", &["CoreDNSDown".to_owned()][..])
    );
    assert_eq!(
        (&*page.labels["team"], &*page.labels["tier"]),
        ("network", "1")
    );
    assert_eq!(page.failure_modes[0].evidence[0].expr, "up > 0\n");
    assert_eq!(page.sections.len(), 1);
    assert_eq!(
        (page.sections[0].line_start, page.sections[0].line_end),
        (22, 24)
    );

    for (source, expected) in [
        (
            "+++\ntitle = 'T'\n\n[[failure_modes]]\nid = 'a'\ntitle = 'A'\n[[failure_modes]]\nid = 'B'\ntitle = 'B'\n+++\n# H\n",
            "page.md:7: failure mode `B`: `id` must be kebab-case: lower-case letters, digits and single hyphens",
        ),
        (
            "+++\n[alerts]\na = 1\n+++\n",
            "page.md:2: front matter: `alerts` must be a list of alert names; it was ignored",
        ),
        (
            "+++\na = 1\n",
            "page.md:1: front matter has no closing `+++`: it was read as text",
        ),
    ] {
        assert_eq!(warnings(source), [expected]);
    }
    let bad = warnings("+++\ntitle = 'T'\nalerts = [\n+++\n");
    assert!(
        bad[0].starts_with("page.md:") && bad[0].contains("not valid TOML"),
        "{bad:?}"
    );
    // As some write out that lines were added.
    assert_eq!(
        parse_clean("+++\nadded lines\n+++\n").sections[0].line_start,
        1
    );
}

#[test]
fn a_heading_that_is_called_as_the_page_is_keeps_its_anchor() {
    let page = parse_clean("Words.\n\n# Top\n\n## More\n");
    let anchors: Vec<_> = page.sections.iter().map(|s| s.anchor.as_str()).collect();
    assert_eq!(anchors, ["top-1", "top", "more"]);
    assert_eq!(page.section("top").map(|section| section.level), Some(1));
}

proptest! {
    #[test]
    fn any_text_is_parsed_and_sections_are_ordered(source in "(---\n|\\+\\+\\+\n)?[ -~\n#`>\\-:\\[\\]é|]{0,400}") {
        let (page, _) = parse("id", "path", source);
        let lines = page.source.lines().count().max(1);
        let mut last = 0;
        for section in &page.sections {
            prop_assert!(section.line_start >= last);
            prop_assert!(section.line_start <= section.line_end);
            prop_assert!(section.line_end <= lines);
            last = section.line_end;
        }
    }
}

#[test]
fn the_section_of_an_alert_is_the_one_of_just_that_name() {
    let source = "# T\n\n## DiskFullSoon\n\nx\n\n## DiskFull\n\ny\n\n## Why CacheCold fires\n\nz\n";
    let (page, _) = parse("id", "id.md", source.to_owned());
    let anchor = |alert: &str| page.section_for_alert(alert).map(|s| s.anchor.as_str());
    assert_eq!(anchor("DiskFull"), Some("diskfull"));
    assert_eq!(anchor("CacheCold"), Some("why-cachecold-fires"));
}

#[test]
fn code_that_is_indented_at_the_begin_of_a_section_stays_code() {
    let source = "\n    one\n    two\n\n# T\n\n    three\n    four\n";
    let (page, _) = parse("id", "id.md", source.to_owned());
    let texts: Vec<_> = page
        .sections
        .iter()
        .map(|s| (s.text.as_str(), s.text_line))
        .collect();
    assert_eq!(texts, [("    one\n    two", 2), ("    three\n    four", 7)]);
}
