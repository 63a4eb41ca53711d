//! Work on many items, shared among the cores. Results are in the order of the items.

pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    chunks(items, |items| items.iter().map(&work).collect())
}

/// For work that keeps something from item to item.
pub fn chunks<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> Vec<R> + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 || items.len() < 2 * cores {
        return work(items);
    }
    let share = items.len().div_ceil(cores);
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = items
            .chunks(share)
            .map(|items| (items, scope.spawn(move || work(items))))
            .collect();
        workers
            .into_iter()
            // What panicked there will do so here, where somebody sees it.
            .flat_map(|(items, worker)| worker.join().unwrap_or_else(|_| work(items)))
            .collect()
    })
}
