//! What has ended is handed out once.

use super::*;

fn taken(table: &mut FlowTable, second: u64) -> Vec<(u16, bool)> {
    let (ended, lost) = table.take_ended(second * SECOND);
    assert_eq!(lost, 0);
    let shown = |ended: &Ended| {
        let row = ended.row(clock(second));
        (row.src_port, ended.supersedes())
    };
    ended.iter().map(shown).collect()
}

#[test]
fn a_connection_is_handed_out_once_when_it_has_settled() {
    let mut table = table_of(100);
    table.keep_ended();
    let (first, second) = (client(1, 1000), client(2, 1000));
    see(&mut table, &first);
    see(&mut table, &second);
    assert_eq!(taken(&mut table, 1010), []);
    see(&mut table, &closed(&first, 1010));
    assert_eq!(
        taken(&mut table, 1010),
        [],
        "its other end may be on its way"
    );
    see(&mut table, &closed(&server(&first), 1010));
    assert_eq!(taken(&mut table, 1011), [(1, false)]);
    assert_eq!(taken(&mut table, 1012), []);
    // Forgotten, it is no news.
    table.age(1100 * SECOND);
    assert_eq!(taken(&mut table, 1100), []);
    assert_eq!(table.forgotten_until(), 1010 * SECOND);
    assert_eq!(table.ids().len(), 1, "the second is open");
}

#[test]
fn one_that_goes_on_is_handed_out_again() {
    let mut table = table_of(100);
    table.keep_ended();
    let one = client(1, 1000);
    see(&mut table, &closed(&one, 1001));
    assert_eq!(taken(&mut table, 1002), [(1, false)]);
    see(&mut table, &later(&server(&one), 1003, 10, 10));
    assert_eq!(taken(&mut table, 1010), [], "it is open");
    see(&mut table, &closed(&server(&one), 1020));
    assert_eq!(taken(&mut table, 1021), [(1, true)]);
    assert_eq!(taken(&mut table, 1022), []);
}

#[test]
fn a_full_table_hands_out_what_ended_and_not_what_comes_back() {
    let mut table = table_of(4);
    table.keep_ended();
    for port in 1..=4 {
        see(&mut table, &client(port, 1000));
    }
    see(&mut table, &closed(&client(1, 1000), 1001));
    // There is room for it only where the first was.
    see(&mut table, &client(5, 1001));
    assert_eq!(taken(&mut table, 1001), [(1, false)]);
    // An open one has to go, and comes back with its end.
    see(&mut table, &client(6, 1002));
    assert_eq!(table.statistics().evicted_open, 1);
    assert_eq!(taken(&mut table, 1003), []);
    see(&mut table, &closed(&client(2, 1000), 1004));
    assert_eq!(taken(&mut table, 1010), [(2, false)]);
}

#[test]
fn datagrams_have_ended_when_they_are_forgotten_or_nobody_listens_any_more() {
    let mut table = table_of(100);
    table.keep_ended();
    let udp = |port, second| {
        let mut sighting = later(&client(port, 1000), second, 10, 10);
        sighting.tuple.protocol = UDP;
        sighting
    };
    see(&mut table, &udp(1, 1000));
    see(&mut table, &udp(2, 1050));
    see(&mut table, &client(3, 1050));
    assert_eq!(taken(&mut table, 1060), []);
    table.age(1070 * SECOND);
    assert_eq!(taken(&mut table, 1070), [(1, false)]);
    let last: Vec<u16> = (table.take_last().0.iter())
        .map(|ended| ended.row(clock(1070)).src_port)
        .collect();
    assert_eq!(last, [2], "an open connection has no end yet");
    assert_eq!(table.take_last().0.len(), 0);
}

#[test]
fn nobody_who_keeps_them_is_no_cost() {
    let mut table = table_of(100);
    see(&mut table, &closed(&client(1, 1000), 1001));
    table.age(2000 * SECOND);
    assert_eq!(taken(&mut table, 2000), []);
}
