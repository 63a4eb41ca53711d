//! What looks like a command, of a shell or in PromQL: who reads an answer at night may paste it. It may be said only as a cited
//! source says it, whole: neither another argument nor one less. Pure.

/// What nobody writes but to run it.
const PROGRAMS: &str = "amtool apt apt-get argocd arping awk bash bpftool bpftrace brctl chmod chown chroot crictl crontab ctr curl dd \
    eksctl etcdctl fdisk fuser gcloud grep hostnamectl hping3 ifconfig ifdown ifup insmod ip6tables ipset ipvsadm istioctl \
    journalctl jq killall kubeadm kubectl minikube mkdir mkfs modprobe nc netcat networkctl nmap nmcli nohup nsenter oc pip pkill \
    promtool redis-cli resolvectl rm rmdir rmmod rsync runwire-assistant runwire-collector scp sed sh socat sudo swapoff systemctl \
    systemd-resolve tc telnet terraform truncate umount useradd wget xargs yq yum zsh";

/// Programs that are spoken of as things, «the conntrack table»: a command is one with an argument.
const TOOLS: &str = "aws conntrack dig ethtool iptables iptables-save kill lsof mtr mysql netstat nslookup nstat openssl perl ping psql \
    python python3 ss ssh strace sysctl tcpdump tracepath traceroute vtysh";

/// The same with what they can be told to do: a command is one with such a word, or with an option.
const CALLED_WITH: &[(&str, &str)] = &[
    ("bridge", "fdb vlan"),
    ("cilium", "bpf endpoint identity monitor service status"),
    (
        "docker",
        "exec inspect kill logs network prune ps restart rm run start stop system",
    ),
    ("flux", "reconcile resume suspend"),
    ("git", "checkout clean clone pull push reset revert"),
    ("helm", "delete install rollback uninstall upgrade"),
    (
        "ip",
        "add append change del delete exec flush get list monitor replace set show",
    ),
    ("nft", "add create delete flush insert list replace"),
    ("perf", "record stat top trace"),
    ("route", "add change del delete flush"),
    ("service", "reload restart start stop"),
    ("shutdown", "now"),
];

/// Words of every day that are programs where an option or a path follows.
const WORDS: &str = "cat cp cut date echo eval exec export find halt head init less ln ls make mount mv nice node printf ps reboot set \
    sleep sort source su tail tee test time timeout top touch wait watch";

const AGGREGATIONS: &str = "avg bottomk count group max min quantile stddev stdvar sum topk";

/// What may follow a command in a sentence and is no argument of one.
const CONNECTIVES: &str = "a again and are as at because before after but by can does for from gives has if in into is it its lists may \
    must of on once or over prints reports returns says should shows since so tells than that the then there this to until was were \
    when where whether which while will with would you";

const SEPARATORS: &str = "| || && & ; > >> < <<";
const COMPARISONS: &str = "== != > < >= <= =~ !~ =";

/// Whether one of the texts has whatever looks like a command in the sentence.
pub(super) fn are_quoted(sentence: &str, texts: &[&str]) -> bool {
    let sentence = sentence.replace('`', "");
    let texts: Vec<String> = texts.iter().map(|text| text.replace('`', "")).collect();
    let lines: Vec<Vec<Word>> = texts
        .iter()
        .flat_map(|text| text.lines())
        .map(words)
        .collect();
    let words = words(&sentence);
    (0..words.len()).all(|at| {
        let here = &words[at..];
        (!is_technical(words[at].text) || is_said(&words[at..=at], &lines))
            && (!is_joint(&words, at)
                || is_said(
                    &words[at.saturating_sub(1)..words.len().min(at + 2)],
                    &lines,
                ))
            && least(here).is_none_or(|least| is_whole(here, least, &lines))
    })
}

/// A word without the marks around it.
struct Word<'a> {
    text: &'a str,
    /// A mark behind it ends the part of the sentence.
    ends: bool,
    /// It begins with a bracket.
    opens: bool,
}

fn words(line: &str) -> Vec<Word<'_>> {
    let words = line.split_whitespace().map(|word| {
        let opened = word.trim_start_matches(['(', '"', '\'', '“', '‘', '«']);
        let text =
            opened.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '"', '\'', '”', '’', '»']);
        let behind = &opened[text.len()..];
        // Of its own, a bracket closes what another word opened.
        let ends = behind.contains(['.', ',', ';', ':', '!', '?'])
            || (behind.contains(')') && !word.contains('('));
        // A mark that stands alone is a word: `;`.
        let text = if text.is_empty() { word } else { text };
        let opens = word.starts_with('(');
        Word { text, ends, opens }
    });
    words.collect()
}

fn has(list: &str, word: &str) -> bool {
    list.split(' ')
        .any(|known| known == word && !word.is_empty())
}

/// Words just so, one after the other.
fn is_said(wanted: &[Word], lines: &[Vec<Word>]) -> bool {
    lines.iter().any(|line| {
        let mut places = line.windows(wanted.len());
        places.any(|place| place.iter().zip(wanted).all(|(a, b)| a.text == b.text))
    })
}

/// A line says the command that begins here, and both end where it does. So many words are the least.
fn is_whole(command: &[Word], least: usize, lines: &[Vec<Word>]) -> bool {
    let starts = lines
        .iter()
        .flat_map(|line| (0..line.len()).map(move |at| &line[at..]));
    starts.into_iter().any(|said| {
        let same = command
            .iter()
            .zip(said)
            .take_while(|(a, b)| a.text == b.text);
        (least..=same.count()).any(|count| is_end(command, count) && is_end(said, count))
    })
}

/// Whether what begins with the first word may end after so many.
fn is_end(words: &[Word], count: usize) -> bool {
    let is_mark = |next: &Word| has(CONNECTIVES, next.text) || has(SEPARATORS, next.text);
    words[count - 1].ends || words.get(count).is_none_or(is_mark)
}

/// With how many words at least a command begins here; none: none does.
fn least(words: &[Word]) -> Option<usize> {
    let [first, second, rest @ ..] = words else {
        return None;
    };
    let groups = || rest.first().is_some_and(|third| third.opens);
    if has(AGGREGATIONS, first.text) && matches!(second.text, "by" | "without") && groups() {
        return Some(4.min(words.len()));
    }
    // A program that is only spoken of is none that is called.
    if is_end(words, 1) {
        return None;
    }
    // Quotes within change nothing for a shell.
    let name = first.text.replace(['"', '\'', '\\'], "");
    let name = name.rsplit('/').next().unwrap_or_default();
    // At the begin of a sentence it may be written with a capital.
    let lower = name.to_ascii_lowercase();
    let name = if name.len() > 3 { lower.as_str() } else { name };
    let third = rest.first().map_or("", |third| third.text);
    let is_called = has(PROGRAMS, name)
        || name.starts_with("mkfs.")
        || (has(TOOLS, name) && is_argument(second.text))
        || (has(WORDS, name) && is_technical(second.text))
        || CALLED_WITH.iter().any(|(program, calls)| {
            let is_call = has(calls, second.text) || has(calls, third);
            *program == name && (is_call || is_technical(second.text))
        });
    is_called.then_some(2)
}

/// An option, an address, a name with a number: `-F`, `db.shop`, `eth0`, `9`.
fn is_argument(word: &str) -> bool {
    let within = word.trim_matches(['.', ':']);
    is_technical(word) || within.contains(['.', ':']) || word.contains(|c: char| c.is_ascii_digit())
}

/// What is no word of a language: an option, a path, an assignment, a call, a name of a metric.
fn is_technical(word: &str) -> bool {
    let rest = word.trim_start_matches(['<', '>', '=', '!', '≤', '≥', '~']);
    if rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit()) && rest != word {
        return false;
    }
    let after = |mark: char| word.strip_prefix(mark).unwrap_or_default();
    let is_option = after('-').starts_with(|c: char| c.is_alphabetic() || c == '-') && word != "--";
    let is_flag = after('+').starts_with(char::is_alphabetic);
    let is_path = word.starts_with('/')
        || word.starts_with("~/")
        || word.starts_with("./")
        || word.starts_with("../");
    let is_arrow = matches!(word, "->" | "=>");
    let has_sign = word.contains(['=', '|', '&', '<', '>', '{', '}', '$', '\\', '*', '_', '^']);
    is_option
        || is_flag
        || is_path
        || (has_sign && !is_arrow && !has(SEPARATORS, word))
        || is_call(word)
}

/// `rate(x)`, and no `pod(s)`.
fn is_call(word: &str) -> bool {
    word.split_once('(').is_some_and(|(name, inside)| {
        name.ends_with(|c: char| c.is_alphanumeric())
            && !matches!(inside.trim_end_matches(')'), "s" | "es")
    })
}

/// What joins commands, or a metric and a number: `up == 0`. A number that is compared is none.
fn is_joint(words: &[Word], at: usize) -> bool {
    let word = words[at].text;
    let before = match at {
        0 => "",
        _ => words[at - 1].text,
    };
    let is_name =
        before.starts_with(|c: char| c.is_ascii_alphabetic()) && !has(CONNECTIVES, before);
    match has(COMPARISONS, word) {
        true => {
            is_name
                || (word.starts_with('>')
                    && words
                        .get(at + 1)
                        .is_some_and(|next| is_technical(next.text)))
        }
        false => has(SEPARATORS, word),
    }
}
