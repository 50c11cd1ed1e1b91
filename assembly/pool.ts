/**
 * The thread pool inside WASM: runs recorded command lists over all threads without returning to JavaScript.
 *
 * A list is a run of commands in shared memory. A command with several chunks is published: each seat (thread) owns a run of chunks and claims
 * them in order, so that its memory streams stay sequential, then takes chunks of the others. Whoever finishes the last chunk of a command
 * publishes the next one and runs commands of one chunk itself on the way. Nobody waits for a thread, only for claimed chunks: a sleeping or
 * dead worker that holds no chunk costs nothing.
 *
 * Command: words [function index, chunks, units, grain, address of the next command, members], then the argument block. `members` of the commands behind it do not depend
 * on it nor on each other: all their chunks are published together.
 * Control block at p (one cache line and more apart):
 *   0 current sequence number (workers sleep on it)   128 sleeping workers   256 lists pending, 260 ring head, 264 ring tail
 *   384 finished chunks of the current command        512 current command, 516 end of the current list, 520 chunks of the command with its members, 524 the command after them
 *   640 finished lists           644 sleeping waiters   768 version of the module table, 772 poisoned, 776 stop
 *   896 asynchronous lists pending, 900 asynchronous lists submitted so far (the helper thread sleeps on it)
 *   1024 ring of 64 lists {start, end, asynchronous, 0}     2048 + 128 t: claim word of seat t {sequence:32, next:16, end:16}
 */

// @ts-ignore: decorator
@inline const RING: usize = 1024;
// @ts-ignore: decorator
@inline const CLAIM: usize = 2048;

// @ts-ignore: decorator
@inline
function runChunk(cmd: usize, chunk: i32): void {
  for (let n = load<i32>(cmd, 4); chunk >= n; n = load<i32>(cmd, 4)) {
    chunk -= n;
    cmd = load<u32>(cmd, 16);
  }
  const grain = load<i32>(cmd, 12);
  const units = load<i32>(cmd, 8);
  const begin = chunk * grain;
  let end = begin + grain;
  if (end > units || end < begin) end = units;
  call_indirect<void>(load<u32>(cmd), cmd + 24, begin, end);
}

/** Makes `cmd` the current command. Its chunks and those of its members are dealt to the seats in equal runs. */
function publish(p: usize, cmd: usize, seats: i32): void {
  let n = load<i32>(cmd, 4);
  let last = cmd;
  for (let i = load<i32>(cmd, 20); i > 0; i--) {
    last = load<u32>(last, 16);
    n += load<i32>(last, 4);
  }
  atomic.store<i32>(p, 0, 384);
  store<u32>(p, <u32>cmd, 512);
  store<i32>(p, n, 520);
  store<u32>(p, load<u32>(last, 16), 524);
  const seq = atomic.load<i32>(p) + 1;
  for (let t = 0; t < seats; t++) {
    const from = <i64>((t * n) / seats);
    const to = <i64>(((t + 1) * n) / seats);
    atomic.store<i64>(p + CLAIM + <usize>t * 128, (<i64>seq << 32) | (from << 16) | to);
  }
  atomic.store<i32>(p, seq);
  const asleep = atomic.load<i32>(p, 128);
  if (asleep > 0) atomic.notify(p, asleep);
}

/** Ends the current list. Returns the first command of the next list, or 0 when none is pending. */
function finishList(p: usize): usize {
  const head = load<u32>(p, 260);
  const asynchronous = load<u32>(p + RING + <usize>(head & 63) * 16, 8);
  store<u32>(p, head + 1, 260);
  const more = atomic.sub<i32>(p + 256, 1) > 1;
  atomic.add<i32>(p + 640, 1);
  // After the count of finished lists: the helper relies on this order before it sleeps.
  if (asynchronous) atomic.sub<i32>(p + 896, 1);
  if (atomic.load<i32>(p, 644) > 0) atomic.notify(p, -1);
  if (!more) return 0;
  return openList(p);
}

function openList(p: usize): usize {
  const list = p + RING + <usize>(load<u32>(p, 260) & 63) * 16;
  store<u32>(p, load<u32>(list, 4), 516);
  return load<u32>(list);
}

/**
 * Goes on from command `cmd`: runs commands of one chunk, publishes the first with more, moves on to further lists. At the start of a list a
 * thread whose module table is old publishes instead of running.
 */
function advance(p: usize, cmd: usize, seats: i32, version: i32, fresh: bool): void {
  while (cmd) {
    if (cmd == <usize>load<u32>(p, 516)) {
      cmd = finishList(p);
      fresh = true;
      continue;
    }
    const n = load<i32>(cmd, 4);
    if (fresh && atomic.load<i32>(p, 768) != version) {
      publish(p, cmd, seats);
      return;
    }
    fresh = false;
    if (n > 1 || load<i32>(cmd, 20) > 0) {
      publish(p, cmd, seats);
      return;
    }
    if (n == 1) runChunk(cmd, 0);
    cmd = load<u32>(cmd, 16);
  }
}

/** Claims and runs chunks of command `seq` until none is left. True when this thread did something. */
function work(p: usize, seq: i32, seat: i32, seats: i32, version: i32): bool {
  let did = false;
  for (let k = 0; k < seats; k++) {
    let t = seat + k;
    if (t >= seats) t -= seats;
    const address = p + CLAIM + <usize>t * 128;
    while (true) {
      const w = atomic.load<i64>(address);
      if (<i32>(w >> 32) != seq) break;
      const next = <i32>(w >> 16) & 0xffff;
      if (next >= (<i32>w & 0xffff)) break;
      if (atomic.cmpxchg<i64>(address, w, w + 0x10000) != w) continue;
      const n = load<i32>(p, 520);
      const after = load<u32>(p, 524);
      runChunk(load<u32>(p, 512), next);
      did = true;
      if (atomic.add<i32>(p + 384, 1) + 1 == n) {
        advance(p, after, seats, version, false);
        return true;
      }
    }
  }
  return did;
}

/** Queues the list [start, end). When none is running it starts it: at once and inline, or (asynchronous) by leaving its first command to the workers. */
export function submit(p: usize, start: usize, end: usize, seats: i32, version: i32, asynchronous: i32): void {
  const tail = load<u32>(p, 264);
  const slot = p + RING + <usize>(tail & 63) * 16;
  store<u32>(slot, <u32>start);
  store<u32>(slot, <u32>end, 4);
  store<u32>(slot, asynchronous, 8);
  store<u32>(p, tail + 1, 264);
  if (asynchronous) atomic.add<i32>(p + 896, 1);
  if (atomic.add<i32>(p + 256, 1) == 0) {
    const cmd = openList(p);
    if (asynchronous) publish(p, cmd, seats);
    else advance(p, cmd, seats, version, true);
  }
  if (asynchronous) {
    atomic.add<i32>(p, 1, 900);
    atomic.notify(p + 900, 1);
  }
}

/** Takes part until `ticket` lists have finished. Returns 0 done, 1 nothing moved for `patience` ms, 2 poisoned. */
export function wait(p: usize, ticket: i32, seat: i32, seats: i32, version: i32, spin: i32, patience: i32): i32 {
  let i = 0;
  while (true) {
    const finished = atomic.load<i32>(p, 640);
    if (finished - ticket >= 0) return 0;
    if (atomic.load<i32>(p, 772)) return 2;
    const seq = atomic.load<i32>(p);
    if (work(p, seq, seat, seats, version)) {
      i = 0;
      continue;
    }
    if (++i < spin) continue;
    // A chunk claimed by another thread is still running, or a serial run of commands. Sleep until a list ends, but look again often: a new command may be ours to share.
    atomic.add<i32>(p + 128, 1);
    atomic.add<i32>(p + 644, 1);
    if (atomic.load<i32>(p) == seq && atomic.load<i32>(p, 640) == finished && !atomic.load<i32>(p, 772)) {
      atomic.wait<i32>(p, seq, 200000);
    }
    atomic.sub<i32>(p + 644, 1);
    atomic.sub<i32>(p + 128, 1);
    if (atomic.load<i32>(p) != seq) i = 0;
    else if (i > spin + patience * 5) return 1;
  }
}

/** Body of a worker thread. Returns 1 when the module table changed, 2 when told to stop. */
export function serve(p: usize, seat: i32, seats: i32, version: i32, spin: i32): i32 {
  let i = 0;
  while (true) {
    const seq = atomic.load<i32>(p);
    if (atomic.load<i32>(p, 776)) return 2;
    if (atomic.load<i32>(p, 768) != version) return 1;
    if (work(p, seq, seat, seats, version)) {
      i = 0;
      continue;
    }
    if (++i < spin) continue;
    atomic.add<i32>(p + 128, 1);
    if (atomic.load<i32>(p) == seq && atomic.load<i32>(p, 768) == version && !atomic.load<i32>(p, 776)) atomic.wait<i32>(p, seq, -1);
    atomic.sub<i32>(p + 128, 1);
    i = 0;
  }
}

/** Body of the helper thread, which takes the main thread's seat while asynchronous lists run. Returns 1 modules changed, 2 stop, 3 more lists than `seen` have finished. */
export function help(p: usize, seat: i32, seats: i32, version: i32, spin: i32, seen: i32): i32 {
  let i = 0;
  while (true) {
    const seq = atomic.load<i32>(p);
    // Sleeping on the number that are pending would not do: a list can come and be done with before the helper sleeps, and the number is the same again.
    const submitted = atomic.load<i32>(p, 900);
    if (atomic.load<i32>(p, 776)) return 2;
    if (atomic.load<i32>(p, 768) != version) return 1;
    if (atomic.load<i32>(p, 640) != seen) return 3;
    if (atomic.load<i32>(p, 896) <= 0) {
      if (atomic.load<i32>(p, 640) != seen) return 3;
      atomic.wait<i32>(p + 900, submitted, -1);
      continue;
    }
    if (work(p, seq, seat, seats, version)) {
      i = 0;
      continue;
    }
    if (++i < spin) continue;
    atomic.add<i32>(p + 128, 1);
    if (atomic.load<i32>(p) == seq && atomic.load<i32>(p, 640) == seen) atomic.wait<i32>(p, seq, 1000000);
    atomic.sub<i32>(p + 128, 1);
    i = 0;
  }
}

/** Wakes every sleeper so that it looks at the flags again. */
export function wake(p: usize): void {
  atomic.notify(p, -1);
  atomic.notify(p + 900, -1);
}
