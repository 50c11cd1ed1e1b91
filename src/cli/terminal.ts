/** What the commands print besides text: errors, progress, interrupts. */
import type { SingleBar } from "cli-progress";
import type { DownloadProgress, LoadProgress } from "../llm/index.ts";

export const RULE = "==========";
/** Exit code after Ctrl-C, as shells give it. */
export const INTERRUPTED = 130;

/** One line on standard error and exit code 1. */
export function reportError(error: unknown, verbose = false): void {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  process.stderr.write(`mlx-vk: ${verbose ? (stack ?? message) : message.split("\n", 1)[0]}\n`);
  process.exitCode = 1;
}

/** Ends quietly when the reader of standard output goes away (`mlx-vk ... | head`). */
export function tolerateClosedPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}

/** A signal that the first Ctrl-C aborts; the second one ends the process. */
export function interruptSignal(): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    controller.abort();
  };
  process.on("SIGINT", stop);
  return { signal: controller.signal, release: () => void process.off("SIGINT", stop) };
}

/** Loading less than this shows no bar. */
const BIG = 256e6;
type Progress = DownloadProgress | LoadProgress;

/** A progress bar on standard error for downloads and for loading big models; nothing when that is no terminal. */
export async function progressBar(): Promise<{ update: (p: Progress) => void; stop: () => void }> {
  if (!process.stderr.isTTY) return { update: () => {}, stop: () => {} };
  const { default: cliProgress } = await import("cli-progress");
  let bar: SingleBar | undefined;
  let stage: Progress["stage"] | undefined;
  const stop = (): void => {
    bar?.stop();
    bar = undefined;
  };
  const update = (p: Progress): void => {
    if (p.stage !== stage) {
      stop();
      stage = p.stage;
      if (p.stage === "load" && p.total < BIG) return;
      const title = p.stage === "download" ? "Downloading" : "Loading";
      bar = new cliProgress.SingleBar(
        {
          format: `${title} {bar} {percentage}% of {size} MB {file}`,
          stream: process.stderr,
          hideCursor: true,
          clearOnComplete: true,
        },
        cliProgress.Presets.shades_classic,
      );
      bar.start(p.total, p.loaded, { size: (p.total / 1e6).toFixed(0), file: p.file });
    }
    bar?.update(p.loaded, { file: p.file });
  };
  return { update, stop };
}
