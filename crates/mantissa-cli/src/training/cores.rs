//! Independent runs side by side, one on each core.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Does every job, as many at a time as there are cores, each with its share of them: numbers do not depend on the number
/// of threads, and small products scale better across runs than across threads. At most `at_once` jobs run side by side.
/// Results are in the order of the jobs.
pub fn do_all<J: Send, R: Send>(
    jobs: Vec<J>,
    at_once: usize,
    work: impl Fn(J) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let workers = rayon::current_num_threads().clamp(1, at_once.min(jobs.len()).max(1));
    let threads = rayon::current_num_threads().div_ceil(workers);
    let queue: Mutex<VecDeque<(usize, J)>> = Mutex::new(jobs.into_iter().enumerate().collect());
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let worker = || -> Result<Vec<(usize, R)>, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Usage(format!("cannot start {threads} threads: {error}")))?;
        let mut results = Vec::new();
        while let Some((index, job)) = next() {
            results.push((index, pool.install(|| work(job))?));
        }
        Ok(results)
    };
    let mut results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_fold(Vec::new(), |mut all, worker| {
            match worker.join() {
                Ok(results) => all.extend(results?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            Ok::<_, Error>(all)
        })
    })?;
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_jobs() {
        let squares = do_all((0..40).collect(), usize::MAX, |x: u64| {
            std::thread::sleep(std::time::Duration::from_micros(37 * (x % 5)));
            Ok(x * x)
        });
        assert!(squares.unwrap().into_iter().eq((0..40).map(|x| x * x)));
        let failed = do_all(vec![1, 2, 3], 1, |x| match x {
            2 => Err(Error::Usage("two".to_owned())),
            x => Ok(x),
        });
        assert_eq!(failed.unwrap_err().to_string(), "two");
    }
}
