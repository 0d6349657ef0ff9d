//! Entry signatures, checked in batches on other threads.
//!
//! A batch of valid signatures costs a third of checking them one by one. When a batch fails, its
//! signatures are checked one by one to say which; a batch never decides what is wrong, only that
//! nothing is.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ed25519_dalek::{Signature, VerifyingKey, verify_batch};

use crate::ledger::key::entry_message;
use crate::statement::Digest;

/// Signatures in one batch: more make it little faster, and fewer can be in flight.
const BATCH: usize = 512;

/// One signature to check.
struct Job {
    seq: u64,
    leaf: Digest,
    signature: Signature,
    key: VerifyingKey,
}

/// The threads, and the batch that is being filled.
pub(super) struct Signatures {
    origin: Arc<str>,
    filling: Vec<Job>,
    sender: Option<SyncSender<Vec<Job>>>,
    threads: Vec<JoinHandle<()>>,
    found: Arc<Mutex<Option<u64>>>,
    count: u64,
}

impl Signatures {
    pub(super) fn new(origin: &str) -> Self {
        let origin: Arc<str> = Arc::from(origin);
        let found = Arc::new(Mutex::new(None));
        // The pass over the file is the other core's work.
        let others = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1));
        let (sender, receiver) = sync_channel(4);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..others.clamp(1, 8))
            .filter_map(|_| {
                let (origin, found, receiver) = (origin.clone(), found.clone(), receiver.clone());
                std::thread::Builder::new()
                    .name("verify".to_owned())
                    .spawn(move || work(&origin, &receiver, &found))
                    .ok()
            })
            .collect();
        Self { origin, filling: Vec::with_capacity(BATCH), sender: Some(sender), threads, found, count: 0 }
    }

    /// Takes a signature to be checked some time before [`Self::finish`] returns.
    pub(super) fn check(&mut self, seq: u64, leaf: Digest, signature: Signature, key: VerifyingKey) {
        self.count += 1;
        self.filling.push(Job { seq, leaf, signature, key });
        if self.filling.len() == BATCH {
            let batch = std::mem::replace(&mut self.filling, Vec::with_capacity(BATCH));
            self.dispatch(batch);
        }
    }

    fn dispatch(&self, batch: Vec<Job>) {
        let Some(sender) = self.sender.as_ref().filter(|_| !self.threads.is_empty()) else {
            return check_batch(&self.origin, &batch, &self.found);
        };
        // When all threads are busy, this one helps rather than waits.
        if let Err(
            std::sync::mpsc::TrySendError::Full(batch) | std::sync::mpsc::TrySendError::Disconnected(batch),
        ) = sender.try_send(batch)
        {
            check_batch(&self.origin, &batch, &self.found);
        }
    }

    /// Whether a bad one is known already; everything behind it does not matter any more.
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.found).is_some()
    }

    /// Waits for all of it: how many there were, and the first entry whose signature does not hold.
    pub(super) fn finish(mut self) -> (u64, Option<u64>) {
        let rest = std::mem::take(&mut self.filling);
        check_batch(&self.origin, &rest, &self.found);
        self.sender = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a verifying thread had panicked");
            }
        }
        (self.count, *lock(&self.found))
    }
}

fn lock(found: &Mutex<Option<u64>>) -> std::sync::MutexGuard<'_, Option<u64>> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(origin: &str, receiver: &Mutex<Receiver<Vec<Job>>>, found: &Mutex<Option<u64>>) {
    loop {
        let batch = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match batch {
            Ok(batch) => check_batch(origin, &batch, found),
            Err(_) => return,
        }
    }
}

fn check_batch(origin: &str, batch: &[Job], found: &Mutex<Option<u64>>) {
    let messages: Vec<Vec<u8>> = batch.iter().map(|job| entry_message(origin, job.seq, &job.leaf)).collect();
    let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let signatures: Vec<Signature> = batch.iter().map(|job| job.signature).collect();
    let keys: Vec<VerifyingKey> = batch.iter().map(|job| job.key).collect();
    if verify_batch(&slices, &signatures, &keys).is_ok() {
        return;
    }
    let first = batch
        .iter()
        .zip(&messages)
        .find(|(job, message)| job.key.verify_strict(message, &job.signature).is_err())
        .map(|(job, _)| job.seq);
    if let Some(first) = first {
        let mut found = lock(found);
        *found = Some(found.map_or(first, |earlier| earlier.min(first)));
    }
}
