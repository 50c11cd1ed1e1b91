/** One library under test, in a process of its own: it holds a model and answers tasks that bench/peers/run.ts sends, one at a time. */
import { type ChildProcess, fork } from "node:child_process";

/** What every library measures. Times are wall-clock seconds; `tokens` are chosen by greedy sampling. */
export interface Engine {
  /** From the prompt's ids to the first token: `tokens` positions, one row of logits. */
  prefill(tokens: number): Promise<number>;
  /** `tokens` further tokens after a prompt of `depth` and one token. */
  decode(depth: number, tokens: number): Promise<number>;
  /** The tokens that greedy sampling chooses after a prompt: checked before anything is timed. */
  generate(ids: readonly number[], count: number): Promise<number[]>;
  /** Seconds until the weights were in memory. */
  readonly loadSeconds: number;
  /** What the library says of itself: its device, its build. */
  readonly about?: string;
}
export interface Task {
  readonly kind: "prefill" | "decode";
  readonly tokens: number;
  readonly depth: number;
}
type Request = Task | { readonly kind: "generate"; readonly ids: readonly number[]; readonly count: number };
type Reply = { readonly seconds: number; readonly peakBytes: number } | { readonly tokens: readonly number[] } | { readonly error: string };

interface Ready {
  readonly loadSeconds: number;
  readonly about?: string;
}
export interface StartOptions {
  /** Flags of Node, after the parent's own. */
  readonly execArgv?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Longest time of loading and of a task, in milliseconds; then the process ends. */
  readonly limitMs?: number;
}

/** Child's side: opens the engine, says that it is ready, answers tasks. */
export async function serve(open: () => Promise<Engine>): Promise<void> {
  const send = (message: unknown): boolean | undefined => process.send?.(message);
  const failed = (error: unknown): void => void send({ error: String(error instanceof Error ? error.stack : error) });
  try {
    const engine = await open();
    const answer = async (r: Request): Promise<Reply> => {
      if (r.kind === "generate") return { tokens: await engine.generate(r.ids, r.count) };
      const seconds = r.kind === "prefill" ? await engine.prefill(r.tokens) : await engine.decode(r.depth, r.tokens);
      return { seconds, peakBytes: process.resourceUsage().maxRSS * 1024 };
    };
    process.on("message", (r: Request) => void answer(r).then(send, failed));
    process.on("disconnect", () => process.exit(0));
    send({ loadSeconds: engine.loadSeconds, ...(engine.about === undefined ? {} : { about: engine.about }) } satisfies Ready);
  } catch (error) {
    failed(error);
  }
}

/** Parent's side. */
export class RemoteEngine {
  peakBytes = 0;
  loadSeconds = 0;
  about: string | undefined;
  private readonly child: ChildProcess;
  private readonly limitMs: number;
  private constructor(child: ChildProcess, limitMs: number) {
    this.child = child;
    this.limitMs = limitMs;
  }
  /** Starts `script` with arguments and waits until its model is loaded. What libraries print goes to standard error. */
  static async start(script: string, args: readonly string[], { execArgv = [], env = {}, limitMs = 300_000 }: StartOptions = {}): Promise<RemoteEngine> {
    const child = fork(script, args, { execArgv: [...process.execArgv, ...execArgv], env: { ...process.env, ...env }, stdio: ["ignore", 2, 2, "ipc"] });
    const engine = new RemoteEngine(child, limitMs);
    const ready = (await engine.next()) as Ready;
    engine.loadSeconds = ready.loadSeconds;
    engine.about = ready.about;
    return engine;
  }
  private next(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => {
        clearTimeout(timer);
        this.child.kill("SIGKILL");
        reject(new Error(why));
      };
      const ended = (code: number | null, signal: string | null): void => fail(`its process ended with ${signal ?? code}`);
      const timer = setTimeout(() => {
        this.child.off("exit", ended);
        fail(`no answer within ${this.limitMs / 1000} s`);
      }, this.limitMs);
      this.child.once("exit", ended);
      this.child.once("message", (message) => {
        this.child.off("exit", ended);
        clearTimeout(timer);
        const { error } = message as { error?: string };
        // What could not be opened is of no use; a failed task says the same.
        if (error !== undefined) fail(error);
        else resolve(message);
      });
    });
  }
  private ask(request: Request): Promise<unknown> {
    const reply = this.next();
    this.child.send(request);
    return reply;
  }
  /** Tokens per second of one task. */
  async run(task: Task): Promise<number> {
    const { seconds, peakBytes } = (await this.ask(task)) as Extract<Reply, { seconds: number }>;
    this.peakBytes = peakBytes;
    return task.tokens / seconds;
  }
  async generate(ids: readonly number[], count: number): Promise<readonly number[]> {
    return ((await this.ask({ kind: "generate", ids, count })) as { tokens: readonly number[] }).tokens;
  }
  /** Ends the process and waits for its end, so that its memory is free. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    if (this.child.connected) this.child.disconnect();
    await ended;
  }
}

/** Ids of a prompt that no engine has seen: random, the same for the same number. */
export function promptIds(length: number, vocabulary: number, seed = 7): number[] {
  const ids: number[] = [];
  let x = seed;
  // The ends of a vocabulary hold bytes and control tokens.
  const margin = Math.min(1000, vocabulary >> 2);
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    ids.push(margin + (x % (vocabulary - 2 * margin)));
  }
  return ids;
}

/** Times generation of tokens one by one: how most libraries give them. */
export function timedEngine(generate: (ids: readonly number[], more: number) => AsyncIterable<number>, vocabulary: number): Omit<Engine, "loadSeconds"> {
  /** Runs a prompt, then `more` tokens; seconds of both parts. */
  const run = async (ids: readonly number[], more: number): Promise<{ first: number; rest: number; tokens: number[] }> => {
    const start = performance.now();
    let first = 0;
    const tokens: number[] = [];
    for await (const token of generate(ids, more)) if (tokens.push(token) === 1) first = performance.now();
    const end = performance.now();
    if (tokens.length !== more + 1) throw new Error(`${tokens.length} tokens instead of ${more + 1}`);
    return { first: (first - start) / 1000, rest: (end - first) / 1000, tokens };
  };
  return {
    prefill: async (tokens) => (await run(promptIds(tokens, vocabulary), 0)).first,
    decode: async (depth, tokens) => (await run(promptIds(depth, vocabulary), tokens)).rest,
    generate: async (ids, count) => (await run(ids, count - 1)).tokens,
  };
}

/** Place of the largest number. */
export function argmax(x: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < x.length; i++) if ((x[i] as number) > (x[best] as number)) best = i;
  if (!Number.isFinite(x[best])) throw new Error(`the largest logit is ${x[best]}`);
  return best;
}
