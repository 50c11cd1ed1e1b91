/** One library under test, in a process of its own: it holds a model and answers tasks that bench/peers/run.ts sends, one at a time. */
import { type ChildProcess, fork } from "node:child_process";

/** What every library measures. Times are wall-clock seconds; `tokens` are chosen by greedy sampling. */
export interface Engine {
  /** From the prompt's ids to the first token: `tokens` positions, one row of logits. */
  prefill(tokens: number): Promise<number>;
  /** `tokens` further tokens after a prompt of `depth` and one token. */
  decode(depth: number, tokens: number): Promise<number>;
  /** Seconds until the weights were in memory. */
  readonly loadSeconds: number;
}
export interface Task {
  readonly kind: "prefill" | "decode";
  readonly tokens: number;
  readonly depth: number;
}
type Reply = { readonly seconds: number; readonly peakBytes: number } | { readonly error: string };

interface Ready {
  readonly loadSeconds: number;
}

/** Child's side: opens the engine, says that it is ready, answers tasks. */
export async function serve(open: () => Promise<Engine>): Promise<void> {
  const send = (message: unknown): boolean | undefined => process.send?.(message);
  try {
    const engine = await open();
    process.on("message", (task: Task) => {
      const run = task.kind === "prefill" ? engine.prefill(task.tokens) : engine.decode(task.depth, task.tokens);
      run.then(
        (seconds) => send({ seconds, peakBytes: process.resourceUsage().maxRSS * 1024 }),
        (error: unknown) => send({ error: String(error instanceof Error ? error.stack : error) }),
      );
    });
    process.on("disconnect", () => process.exit(0));
    send({ loadSeconds: engine.loadSeconds } satisfies Ready);
  } catch (error) {
    send({ error: String(error instanceof Error ? error.stack : error) });
  }
}

/** Parent's side. */
export class RemoteEngine {
  peakBytes = 0;
  loadSeconds = 0;
  private readonly child: ChildProcess;
  private constructor(child: ChildProcess) {
    this.child = child;
  }
  /** Starts `script` with arguments and waits until its model is loaded. */
  static async start(script: string, args: readonly string[]): Promise<RemoteEngine> {
    const child = fork(script, args, { execArgv: process.execArgv, stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const engine = new RemoteEngine(child);
    engine.loadSeconds = ((await engine.next()) as Ready).loadSeconds;
    return engine;
  }
  private next(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const ended = (code: number | null, signal: string | null): void => reject(new Error(`${this.child.spawnfile} ended with ${signal ?? code}`));
      this.child.once("exit", ended);
      this.child.once("message", (message) => {
        this.child.off("exit", ended);
        const { error } = message as { error?: string };
        if (error !== undefined) reject(new Error(error));
        else resolve(message);
      });
    });
  }
  /** Tokens per second of one task. */
  async run(task: Task): Promise<number> {
    const reply = this.next();
    this.child.send(task);
    const { seconds, peakBytes } = (await reply) as Exclude<Reply, { error: string }>;
    this.peakBytes = peakBytes;
    return task.tokens / seconds;
  }
  stop(): void {
    this.child.disconnect();
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
