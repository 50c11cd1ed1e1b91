/** The CPU backend: worker threads, command lists, submission and waiting. The protocol itself runs in WASM (assembly/pool.ts). */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Epoch } from "../../core/array.ts";
import { env } from "../../core/env.ts";
import { type MxError, opError } from "../../core/error.ts";
import type { SharedMemory } from "./memory.ts";
import { ModuleTable, moduleBytes, relaxedSimdWorks } from "./modules.ts";
import type { ModuleMessage, WorkerReport, WorkerSetup } from "./worker.ts";
import { workerSource } from "./worker.gen.ts";

const scratchBytes = 4 << 20;
const controlBytes = 65536;
/** Iterations of the waiting loop (about 0.3 ns each) before a thread sleeps. */
const workerSpin = 20_000;
const mainSpin = 100_000;
/** The ring of pending lists has 64 places. */
const mostPending = 60;

interface PoolExports {
  submit(p: number, start: number, end: number, seats: number, version: number, asynchronous: number): void;
  wait(p: number, ticket: number, seat: number, seats: number, version: number, spin: number, patience: number): number;
  wake(p: number): void;
}

/** Words of a finished recording: placed in shared memory and run. */
export interface CommandList {
  readonly start: number;
  readonly end: number;
}

/** Number of threads in all: MLX_THREADS, or the cores this process may use. */
export function threadCount(): number {
  const asked = env("MLX_THREADS");
  return asked > 0 ? Math.min(asked, 64) : Math.min(availableParallelism(), 64);
}

/** State of a submitted list, and its error if it failed. */
class ListEpoch implements Epoch {
  done = false;
  error: Error | undefined;
  readonly ticket: number;
  private readonly pool: WorkerPool;
  private waiters: { resolve: () => void; reject: (error: Error) => void }[] = [];
  private readonly over: () => void;
  constructor(pool: WorkerPool, ticket: number, over: () => void) {
    this.pool = pool;
    this.ticket = ticket;
    this.over = over;
  }
  wait(): void {
    if (!this.done) this.pool.waitFor(this.ticket);
    if (this.error) throw this.error;
  }
  promise(): Promise<void> {
    if (this.done) return this.error ? Promise.reject(this.error) : Promise.resolve();
    this.pool.keepAlive(true);
    return new Promise((resolve, reject) => this.waiters.push({ resolve, reject }));
  }
  settle(error?: Error): void {
    if (this.done) return;
    this.done = true;
    this.error = error;
    this.over();
    for (const w of this.waiters) error ? w.reject(error) : w.resolve();
    this.waiters = [];
  }
}

export class WorkerPool {
  readonly threads = threadCount();
  readonly relaxed = relaxedSimdWorks(env("MLX_RELAXED_SIMD"));
  readonly modules: ModuleTable;
  /** Lists run so far, and how many of them asynchronously. */
  readonly counters = { lists: 0, asynchronous: 0, restarts: 0 };
  private readonly shared: SharedMemory;
  private readonly poolModule: WebAssembly.Module;
  private readonly exports: PoolExports;
  private control: number;
  private words: Int32Array;
  private workers: Worker[] = [];
  private helper: Worker | undefined;
  private started = false;
  private submitted = 0;
  private readonly pending: ListEpoch[] = [];
  private readonly scratchBase: number;

  constructor(shared: SharedMemory) {
    this.shared = shared;
    this.scratchBase = shared.reserve((this.threads + 1) * scratchBytes);
    this.modules = new ModuleTable(shared.memory, this.scratchBase, this.relaxed);
    this.modules.onAdded = (message) => this.announce(message);
    this.poolModule = new WebAssembly.Module(moduleBytes("pool", false));
    this.exports = new WebAssembly.Instance(this.poolModule, { env: { memory: shared.memory, table: this.modules.table } }).exports as unknown as PoolExports;
    this.control = shared.reserve(controlBytes);
    this.words = new Int32Array(shared.memory.buffer, this.control, controlBytes / 4);
  }
  /** True while asynchronous work may still use memory. */
  get busy(): boolean {
    return this.pending.length > 0;
  }
  /** Number of worker threads that run now. */
  get alive(): number {
    return this.workers.length + (this.helper ? 1 : 0);
  }

  /** Runs a list and waits for it. The calling thread takes part. */
  run(list: CommandList): void {
    this.start();
    this.drain();
    this.counters.lists++;
    const ticket = ++this.submitted;
    const version = this.modules.messages.length;
    try {
      this.exports.submit(this.control, list.start, list.end, this.threads, version, 0);
    } catch (error) {
      throw this.fail(`a kernel failed: ${(error as Error).message}`);
    }
    this.join(ticket);
  }
  /**
   * Submits a list to the workers and returns at once; `over` is called when it has run. Blocks that arrays give back meanwhile may be used by
   * later lists, which run after it; host writes wait (`HostMemory.quiesce`).
   */
  submit(list: CommandList, over: () => void): Epoch {
    this.start();
    this.startHelper();
    if (this.pending.length >= mostPending) this.waitFor((this.pending[0] as ListEpoch).ticket);
    this.counters.lists++;
    this.counters.asynchronous++;
    const epoch = new ListEpoch(this, ++this.submitted, over);
    this.pending.push(epoch);
    this.exports.submit(this.control, list.start, list.end, this.threads, this.modules.messages.length, 1);
    return epoch;
  }
  /** Waits for all asynchronous lists. */
  drain(): void {
    const last = this.pending[this.pending.length - 1];
    if (last) this.waitFor(last.ticket);
  }
  waitFor(ticket: number): void {
    this.join(ticket);
    this.settleUpTo(ticket);
  }
  /** Worker threads do not keep the process alive, except while a promise waits for them. */
  keepAlive(on: boolean): void {
    if (on) this.helper?.ref();
    else this.helper?.unref();
  }
  /** Stops all threads. The next run starts new ones. */
  stop(): void {
    Atomics.store(this.words, 776 / 4, 1);
    this.exports.wake(this.control);
    for (const w of [...this.workers, ...(this.helper ? [this.helper] : [])]) void w.terminate();
    this.workers = [];
    this.helper = undefined;
    this.started = false;
  }
  /** The running worker threads, for tests that kill one. */
  get workerThreads(): readonly Worker[] {
    return [...this.workers, ...(this.helper ? [this.helper] : [])];
  }

  private join(ticket: number): void {
    const version = this.modules.messages.length;
    const patience = 250;
    let last = -1;
    for (let quiet = 0; ; ) {
      let why: number;
      try {
        why = this.exports.wait(this.control, ticket, 0, this.threads, version, mainSpin, patience);
      } catch (error) {
        throw this.fail(`a kernel failed: ${(error as Error).message}`);
      }
      if (why === 0) return;
      if (why === 2) throw this.fail("a kernel failed on a worker thread");
      const progress = (Atomics.load(this.words, 0) * 65536 + Atomics.load(this.words, 384 / 4)) % 2 ** 31;
      quiet = progress === last ? quiet + 1 : 0;
      last = progress;
      // Read here only: a look at the environment costs as much as a short kernel.
      if (quiet >= (env("MLX_STALL_SECONDS") * 1000) / patience) throw this.fail(`no progress for ${env("MLX_STALL_SECONDS")} s; a worker thread has died or hangs`);
    }
  }
  private settleUpTo(ticket: number): void {
    while (this.pending.length > 0 && (this.pending[0] as ListEpoch).ticket - ticket <= 0) (this.pending.shift() as ListEpoch).settle();
    if (this.pending.length === 0) this.keepAlive(false);
  }
  private start(): void {
    if (this.started) return;
    this.started = true;
    for (let seat = 1; seat < this.threads; seat++) this.workers.push(this.spawn(seat, false));
  }
  private startHelper(): void {
    this.helper ??= this.spawn(0, true);
  }
  private spawn(seat: number, helper: boolean): Worker {
    const scratch = this.scratchBase + (helper ? this.threads : seat) * scratchBytes;
    const workerData: WorkerSetup = { memory: this.shared.memory, pool: this.poolModule, control: this.control, scratch, seat, seats: this.threads, spin: workerSpin, helper };
    const worker = new Worker(workerSource, { eval: true, workerData, execArgv: [], stdin: false });
    for (const m of this.modules.messages) worker.postMessage(m);
    worker.on("message", (report: WorkerReport) => {
      if ("finished" in report) this.settleUpTo(report.finished);
      else if (this.workerThreads.includes(worker)) this.fail(`a kernel failed on a worker thread: ${report.failed}`);
    });
    worker.on("error", (error) => {
      if (this.workerThreads.includes(worker)) this.fail(`a worker thread failed: ${error.message}`);
    });
    worker.on("exit", () => this.lost(worker));
    // Listening refs the worker's port again, so this comes last.
    worker.unref();
    return worker;
  }
  /** A worker ended by itself. It may have held a chunk, so pending work fails; the next run starts new threads. */
  private lost(worker: Worker): void {
    if (!this.workerThreads.includes(worker)) return;
    if (this.busy) this.fail("a worker thread died");
    else {
      this.stop();
      this.renew();
    }
  }
  private announce(message: ModuleMessage): void {
    for (const w of this.workerThreads) w.postMessage(message);
    Atomics.store(this.words, 768 / 4, this.modules.messages.length);
    this.exports.wake(this.control);
  }
  /** Fails all pending lists, stops the threads and prepares a fresh pool. Returns the error to throw. */
  private fail(what: string): Error {
    const at = this.words[512 / 4] as number;
    const kernel = at > 0 ? this.modules.nameOf(new Int32Array(this.shared.memory.buffer, at, 6)[0] as number) : "?";
    const error: MxError = opError("eval", `${what} (kernel ${kernel}); the thread pool was restarted`);
    this.counters.restarts++;
    this.stop();
    this.renew();
    for (const e of this.pending.splice(0)) e.settle(error);
    return error;
  }
  private renew(): void {
    this.control = this.shared.reserve(controlBytes);
    this.words = new Int32Array(this.shared.memory.buffer, this.control, controlBytes / 4);
    this.words[768 / 4] = this.modules.messages.length;
    this.submitted = 0;
  }
}
