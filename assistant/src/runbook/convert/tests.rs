use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::runbook::parse::{heading_anchors, parse_as};

/// The Markdown, each line with the number of the line in the file that it came from.
fn check(format: Format, source: &str, expected: &str) {
    let sheet = convert(format, source, 1).unwrap();
    let shown: Vec<String> = sheet
        .text
        .lines()
        .zip(&sheet.lines)
        .filter(|(text, _)| !text.is_empty())
        .map(|(text, line)| format!("{line} {text}"))
        .collect();
    let expected: Vec<&str> = expected.trim().lines().map(str::trim_start).collect();
    assert_eq!(shown, expected, "{source}");
}

#[test]
fn restructuredtext_headings_and_blocks() {
    check(
        Format::ReStructuredText,
        "\
==========
DNS faults
==========

Names ``cannot`` be :ref:`resolved <dns>`, see `the page <https://x.y/z>`_.

.. _diag:

Diagnosis
---------

Ask the server::

    dig @10.0.0.10 # not a heading
      +short

- one
- two

.. note:: Mind the
   cache.

.. code-block:: sh
   :linenos:

   ss -lnt

.. list-table:: Codes
   :header-rows: 1

   * - code
     - means
   * - 2
     - SERVFAIL | broken

.. include:: /etc/passwd
.. a comment

Deeper
^^^^^^

====  ====
a     b
====  ====
1     2
====  ====

Again
-----
# no heading
",
        "\
2 # DNS faults
5 Names `cannot` be resolved, see [the page](https://x.y/z).
9 ## Diagnosis {#diag}
12 Ask the server:
14 ```
14 dig @10.0.0.10 # not a heading
15   +short
15 ```
17 - one
18 - two
20 **Note:** Mind the
21 cache.
26 ```sh
26 ss -lnt
26 ```
28 Codes
31 | code | means |
31 | --- | --- |
33 | 2 | SERVFAIL \\| broken |
36 include: /etc/passwd
39 ### Deeper
42 ```
42 ====  ====
43 a     b
44 ====  ====
45 1     2
46 ====  ====
46 ```
48 ## Again
50 \\# no heading",
    );
}

#[test]
fn asciidoc_headings_and_blocks() {
    check(
        Format::AsciiDoc,
        "\
= DNS faults
:toc: left

First words with https://x.y[a link] and <<diag,the part>>.

[[diag]]
== Diagnosis

NOTE: Mind the cache.

[WARNING]
====
Do not restart.
====

[source,bash]
----
dig # not a heading
== neither
----

.A table
[cols=\"1,2\"]
|===
|code |means

|2
|SERVFAIL
|===

* one
** inner
. first

// a comment
include::/etc/passwd[]

Old style
~~~~~~~~~

term:: what it is
",
        "\
1 # DNS faults
4 First words with [a link](https://x.y) and the part.
7 ## Diagnosis {#diag}
9 **Note:** Mind the cache.
11 **Warning:**
13 Do not restart.
18 ```bash
18 dig # not a heading
19 == neither
19 ```
22 **A table**
25 | code | means |
25 | --- | --- |
27 | 2 | SERVFAIL |
31 - one
32   - inner
33 1. first
36 include: /etc/passwd
38 ### Old style
41 **term**: what it is",
    );
}

#[test]
fn of_rst_names_are_put_in_and_pages_and_sections_are_linked() {
    check(
        Format::ReStructuredText,
        "\
.. |tool| replace:: the ``ss``
   command
.. |ok| unicode:: U+2713
.. |Big logo| image:: logo.png
   :alt: our logo
.. _first:
.. _second-label:

Look at queues
==============

Run |tool| |ok| at |big  LOGO|, not |unknown| or a | b; ``|tool|`` stays.

See :ref:`first`, :ref:`this <Second-Label>`, :ref:`elsewhere` and :ref:`that <elsewhere>`.

Go on with :doc:`../dns/slow-answers`, :doc:`DNS <dns>`, :doc:`/index` or :doc:`a <b c>`::

    echo |tool|

* |tool|_ again
",
        "\
9 # Look at queues {#second-label}
12 Run the `ss` command ✓ at our logo, not |unknown| or a | b; `|tool|` stays.
14 See [Look at queues](#second-label), [this](#second-label), elsewhere and that.
16 Go on with [slow-answers](../dns/slow-answers.rst), [DNS](dns.rst), index or a:
18 ```
18 echo |tool|
18 ```
20 * the `ss` command again",
    );
}

#[test]
fn html_headings_and_blocks() {
    let source = "\
<!DOCTYPE html [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>
<html><head><title>The title</title>
<style>h1 { color: red }</style><script>if (a < b) { alert('</p>') }</script></head>
<body>
<h1 id=\"dns\">DNS &amp; <em>faults</em><a class=\"headerlink\" href=\"#dns\">¶</a></h1>
<p>Names cannot be
resolved &b; by <code>dig</code>. <a href='https://x.y/z'>More</a></p>
<!-- a comment <h2>no</h2> -->
<h2>Diagnosis</h2>
<pre><code class=\"language-sh\">ss -lnt # no heading
dig a | grep b</code></pre>
<ul><li>one</li><li>two</li></ul>
<table><tr><th>code<th>means</tr>
<tr><td>2</td><td>a | b</td></tr></table>
a < b and c<d
</body></html>";
    check(
        Format::Html,
        source,
        "\
5 # DNS & faults {#dns}
6 Names cannot be
7 resolved &b; by `dig`. [More](https://x.y/z)
9 ## Diagnosis
10 ```sh
10 ss -lnt # no heading
11 dig a | grep b
11 ```
12 - one
12 - two
13 | code | means |
13 | --- | --- |
14 | 2 | a \\| b |
15 a < b and c",
    );
    let title = |source: &str| parse_as(Format::Html, "id", "p", source.to_owned()).0.title;
    assert_eq!(title(source), "DNS & faults");
    assert_eq!(title("<title>The title</title><p>x"), "The title");
}

#[test]
fn plain_text_is_text() {
    check(
        Format::Text,
        "The link is down\n\n# not a heading\n> nor a quote\n\n    ip link\n\n      up\nFix\n---\n```\n",
        "\
1 The link is down
3 \\# not a heading
4 \\> nor a quote
6 ```
6 ip link
8   up
8 ```
9 Fix
10 \\---
11 \\```",
    );
    let page = parse_as(
        Format::Text,
        "id",
        "p",
        "Link down\n\nText.\n\nFix\n===\nmore\n".into(),
    )
    .0;
    assert_eq!(page.title, "Fix");
    assert_eq!(
        page.section("fix").map(|section| section.line_start),
        Some(5)
    );
    let page = parse_as(Format::Text, "id", "p", "Link down\n\nText.\n".into()).0;
    assert_eq!(page.title, "Link down");
}

#[test]
fn what_stands_in_angle_brackets_is_shown() {
    for (format, source, expected) in [
        (
            Format::Text,
            "Run rm -rf <mount>/tmp, or C:\\<name>, `a <b>` or ``<c>`` if x < y.\nAn odd ` and <z>.\n",
            "1 Run rm -rf \\<mount>/tmp, or C:\\\\\\<name>, `a <b>` or ``<c>`` if x < y.\n2 An odd ` and \\<z>.",
        ),
        (
            Format::ReStructuredText,
            "Drain <node> with ``drain <node>``.\n\n.. note:: Not <this>\n",
            "1 Drain \\<node> with `drain <node>`.\n3 **Note:** Not \\<this>",
        ),
        (
            Format::AsciiDoc,
            "term:: is <a>\n\n|===\n|<b> |c\n|===\n",
            "1 **term**: is \\<a>\n4 | \\<b> | c |\n4 | --- | --- |",
        ),
        (
            Format::Html,
            "<p>Drain &lt;node&gt; with <code>drain &lt;node&gt;</code></p><h2>A &lt;b&gt;</h2>",
            "1 Drain \\<node> with `drain <node>`\n1 ## A \\<b>",
        ),
    ] {
        check(format, source, expected);
    }
}

#[test]
fn of_mdx_what_a_program_reads_is_left_out() {
    check(
        Format::Mdx,
        "\
import Tabs from '@theme/Tabs'
import {
  x
} from 'y'

export const meta = { a: 1 }

# DNS faults

{/* a comment
   of two lines */}

<Tabs
  groupId=\"a\"
>
  <TabItem value=\"a\" label=\"kubectl\">

    Ask the server:

    ```sh
    import os
    <Keep>
    ```

  </TabItem>
</Tabs>

A <Badge>new</Badge> word,
import nothing.

<Link to=\"x\">of a line</Link>

<img src=\"x\"/>

{/* never ends
",
        "\
8 # DNS faults
16 **kubectl**
18 Ask the server:
20 ```sh
21 import os
22 <Keep>
23 ```
28 A <Badge>new</Badge> word,
29 import nothing.
31 <Link to=\"x\">of a line</Link>
33 <img src=\"x\"/>
35 {/* never ends",
    );
}

#[test]
fn a_cell_that_covers_several_places_is_in_each_row() {
    let expected = "\
1 | Code | Timeout |  |
1 | --- | --- | --- |
2 | Code | connect | read |
3 | 5xx | 1 s | 2 s |
4 | 5xx | none |
5 | rest | none |";
    check(
        Format::Html,
        "<table><tr><th rowspan=\"2\">Code<th colspan=2>Timeout</tr>\n<tr><th>connect<th>read</tr>\n\
         <tr><td rowspan=2>5xx</td><td>1 s</td><td>2 s</td></tr>\n<tr><td colspan=2 rowspan=0>none</td></tr>\n\
         <tr><td>rest</td></tr></table>",
        expected,
    );
    check(
        Format::AsciiDoc,
        "|===\n|Code |Value |Then\n\n.2+|5xx |1 s |restart\n2+|none of\nthem\n3*|x\n.2+^|y 2+|z\n|u |v\n|===\n",
        "\
2 | Code | Value | Then |
2 | --- | --- | --- |
4 | 5xx | 1 s | restart |
5 | 5xx | none of them |
7 | x | x | x |
8 | y | z |
9 | y | u | v |",
    );
}

const OTHERS: [Format; 5] = [
    Format::ReStructuredText,
    Format::AsciiDoc,
    Format::Html,
    Format::Text,
    Format::Mdx,
];

#[test]
fn what_is_made_to_break_readers_is_read_in_time() {
    let many = |text: &str, count: usize| text.repeat(count);
    for source in [
        many("<div>", 300_000),
        format!(
            ".. |a| replace:: {}\n\n{}",
            many("x", 10_000),
            many("|a| ", 100_000)
        ),
        many("|", 1_000_000),
        ":`a` `:`b` ::`c`".to_owned(),
        many("<h2>x</h2>\n", 100_000),
        many("Title\n-----\n\n", 100_000),
        many("== Title\n\n", 100_000),
        many("<a b=\"", 300_000),
        many("<!D[>", 300_000),
        many("<!D[>", 300_000) + "]>",
        many("<!--", 300_000),
        many("&lt", 500_000),
        many("`", 1_000_000),
        many("<<a[", 300_000),
        many("|===\n", 100_000),
        many("----\na\n", 100_000),
        many("+-+\n", 100_000),
        many("<Tag\n", 100_000),
        many("{/*\n", 100_000),
        "<table>".to_owned() + &many("<td>a", 10_000) + &many("<tr><td>a", 10_000),
        "<table>".to_owned() + &many("<td rowspan=999>a", 5_000) + &many("<tr><td>a", 10_000),
        "<table>".to_owned() + &many("<tr><td rowspan=999 colspan=99>a", 10_000),
        format!("|===\n{}\n|===\n", many(".999+|a ", 10_000)),
        format!("|===\n{}", many("99.999+|a\n", 10_000)),
        format!("x::\n\n{}", many(" a\n", 100_000)),
        (0..2000)
            .map(|depth| format!("{}.. note::\n\n", " ".repeat(depth)))
            .collect(),
        "x".repeat(4 << 20),
        "\u{0}\u{feff}\u{2028}".repeat(100_000),
    ] {
        for format in OTHERS {
            let started = Instant::now();
            let (page, _) = parse_as(format, "id", "p", source.clone());
            assert!(page.body().len() <= 8 * source.len() + 100);
            let took = started.elapsed();
            let start = &source[..source.floor_char_boundary(20)];
            assert!(
                took < Duration::from_secs(20),
                "{format:?} {start:?} {took:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_a_page_whose_lines_exist(
        source in "([ -~\n#`>=*_.:|+\\-\\[\\]é\u{a0}]{0,12}|<[/a-z0-9]{1,4}>|\n|\n\n|    |====\n|----\n|::\n|\\.\\. |\\|===\n|&amp;|<!--|-->|NOTE: ){0,60}"
    ) {
        for format in OTHERS {
            let (page, _) = parse_as(format, "id", "p", source.clone());
            let lines = source.lines().count().max(1);
            for section in &page.sections {
                prop_assert!(section.line_start >= 1 && section.line_start <= section.line_end);
                prop_assert!(section.line_end <= lines, "{:?} {} of {}", format, section.line_end, lines);
                prop_assert!(heading_anchors(&page).contains(&section.anchor) || section.level == 0);
            }
        }
    }

    /// Nothing of a plain page's words is lost in any format.
    #[test]
    fn every_word_is_kept(source in "([a-z]{2,6}( [a-z]{2,6}){0,5}\n{1,3}){1,20}") {
        for format in OTHERS {
            let (page, _) = parse_as(format, "id", "p", source.clone());
            let words: Vec<&str> = page.body().split_whitespace().collect();
            prop_assert_eq!(words, source.split_whitespace().collect::<Vec<_>>());
        }
    }
}

#[test]
fn no_cell_and_no_line_of_a_note_is_lost() {
    check(
        Format::AsciiDoc,
        "|===\n|Key |Value\n\n|timeout |5 s\n|look | `ps \\| wc`\n|===\n",
        "\
2 | Key | Value |
2 | --- | --- |
4 | timeout | 5 s |
5 | look | `ps \\| wc` |",
    );
    check(
        Format::Html,
        "<table><tr><th>Code<th>Retry<th>Then</tr>\n<tr><td>1</td><td></td><td>restart</td></tr>\n<tr><td> </td></tr></table>",
        "\
1 | Code | Retry | Then |
1 | --- | --- | --- |
2 | 1 |  | restart |",
    );
    check(
        Format::ReStructuredText,
        ".. warning::\n   :class: wide\n   :program:`rm` deletes all.\n",
        "1 **Warning:**\n3 `rm` deletes all.",
    );
    check(
        Format::AsciiDoc,
        ":ns: kube-system\n:cmd: oc -n {ns}\n\nLook in {NS}, not {other}.\n\n[source,sh,subs=\"attributes+\"]\n----\n{cmd} get pods\n----\n\n----\nawk '{ns}'\n----\n:ns!:\n\n== In {ns}\n",
        "\
4 Look in kube-system, not {other}.
8 ```sh
8 oc -n kube-system get pods
8 ```
12 ```
12 awk '{ns}'
12 ```
16 ## In {ns} {#in-ns}",
    );
    check(
        Format::Html,
        "<ol><li><p>Drain the node.</p></li><li>\n<div>Wait <b>long</b>.</div>\n</li><li></li></ol><p>After.</p>",
        "1 1. Drain the node.\n2 1. Wait **long**.\n3 After.",
    );
    check(
        Format::Html,
        "<ul><li>Outer<ul><li>inner</li></ul></li><li>Next</li></ul>",
        "1 - Outer\n1   - inner\n1 - Next",
    );
    check(
        Format::Html,
        "<p><a href=\"../dns.html#cause\">DNS</a>, <a href=\"javascript:x.html\">no</a>, <a href=\"logo.png\">logo</a></p>",
        "1 [DNS](../dns.html#cause), no, logo",
    );
    check(
        Format::ReStructuredText,
        "See the `board`_.\n\n.. _board: https://g.example/d/x?a=b\n",
        "1 See the board.\n3 [board](https://g.example/d/x?a=b)",
    );
    check(
        Format::ReStructuredText,
        ".. code-block:: sh\n   :caption: On the node itself\n\n   nft list ruleset\n",
        "2 On the node itself\n4 ```sh\n4 nft list ruleset\n4 ```",
    );
    check(
        Format::ReStructuredText,
        ".. csv-table:: Limits\n   :header: \"Key\", \"At most\"\n   :widths: 1, 2\n\n   timeout, 5 s\n   \"size, whole\", 1 MiB\n",
        "\
1 Limits
2 | Key | At most |
2 | --- | --- |
5 | timeout | 5 s |
6 | size, whole | 1 MiB |",
    );
}
