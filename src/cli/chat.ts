/** `mlx-vk chat`: a conversation. What the model has read stays in its cache between the turns. */
import { createInterface } from "node:readline/promises";
import { canTrimPromptCache, type ChatMessage, type LoadedModel, makePromptCache, type PromptCache, type Sampler, streamGenerate, trimPromptCache } from "../llm/index.ts";
import { loadModel, type ModelOptions, samplerOf, type SamplingOptions } from "./session.ts";
import { INTERRUPTED, tolerateClosedPipe } from "./terminal.ts";

type ChatOptions = ModelOptions & SamplingOptions;

const HELP = "Commands: q quits, r starts a new conversation, h shows this.\n";

/** A conversation with its cache. */
class Conversation {
  readonly #loaded: LoadedModel;
  readonly #options: ChatOptions;
  readonly #sampler: Sampler;
  #messages: ChatMessage[] = [];
  #cache: PromptCache;
  /** Token ids whose keys and values the cache holds. */
  #held: number[] = [];

  constructor(loaded: LoadedModel, options: ChatOptions) {
    this.#loaded = loaded;
    this.#options = options;
    this.#sampler = samplerOf(options);
    this.#cache = makePromptCache(loaded.model);
    this.reset();
  }
  reset(): void {
    const { systemPrompt } = this.#options;
    this.#messages = systemPrompt === undefined ? [] : [{ role: "system", content: systemPrompt }];
  }
  /** Answers piece by piece. An aborted answer stays in the conversation as far as it came. */
  async *answer(text: string, signal: AbortSignal): AsyncGenerator<string> {
    const { model, tokenizer } = this.#loaded;
    this.#messages.push({ role: "user", content: text });
    const ids = await this.#ids();
    const fresh = this.#reuse(ids);
    const made: number[] = [];
    let answer = "";
    try {
      const options = { maxTokens: this.#options.maxTokens, sampler: this.#sampler, promptCache: this.#cache, signal };
      for await (const r of streamGenerate(model, tokenizer, fresh, options)) {
        made.push(r.token);
        answer += r.text;
        yield r.text;
      }
    } finally {
      this.#messages.push({ role: "assistant", content: answer });
      // The last token was chosen but not read yet.
      this.#held = [...ids, ...made].slice(0, this.#cache[0]?.offset ?? 0);
    }
  }
  /** The whole conversation as token ids. */
  async #ids(): Promise<number[]> {
    const { tokenizer } = this.#loaded;
    if (!tokenizer) throw new Error("this model has no tokenizer: chat needs one");
    if (tokenizer.chatTemplate === undefined) return tokenizer.encode(this.#messages.map((m) => m.content).join("\n"));
    return tokenizer.encode(await tokenizer.applyChatTemplate(this.#messages), { addSpecialTokens: false });
  }
  /** Cuts the cache back to what it has in common with `ids` and gives the ids still to read (at least one). */
  #reuse(ids: readonly number[]): number[] {
    let common = 0;
    while (common < Math.min(ids.length - 1, this.#held.length) && ids[common] === this.#held[common]) common++;
    const surplus = this.#held.length - common;
    if (surplus > 0) {
      if (canTrimPromptCache(this.#cache)) trimPromptCache(this.#cache, surplus);
      else {
        for (const c of this.#cache) c.dispose();
        common = 0;
      }
    }
    return ids.slice(common);
  }
}

export async function chatCommand(options: ChatOptions): Promise<void> {
  tolerateClosedPipe();
  const conversation = new Conversation(await loadModel(options), options);
  const terminal = createInterface({ input: process.stdin, output: process.stdout, terminal: process.stdin.isTTY === true });
  let answering: AbortController | undefined;
  const interrupt = (): void => {
    if (answering && !answering.signal.aborted) answering.abort();
    else {
      process.exitCode = INTERRUPTED;
      terminal.close();
    }
  };
  terminal.on("SIGINT", interrupt);
  process.on("SIGINT", interrupt);
  let open = true;
  terminal.on("close", () => {
    open = false;
  });
  // Lines that were read before the input ended are still answered; a closed interface must not be asked for more.
  const ask = (): void => void (open ? terminal.prompt() : process.stdout.write(">> "));
  process.stdout.write(HELP);
  terminal.setPrompt(">> ");
  ask();
  for await (const line of terminal) {
    const text = line.trim();
    if (text === "q") break;
    if (text === "r") conversation.reset();
    else if (text === "h") process.stdout.write(HELP);
    else if (text !== "") {
      answering = new AbortController();
      try {
        for await (const piece of conversation.answer(text, answering.signal)) process.stdout.write(piece);
      } catch (error) {
        if (!answering.signal.aborted) throw error;
      }
      answering = undefined;
      process.stdout.write("\n");
    }
    ask();
  }
  terminal.close();
  process.off("SIGINT", interrupt);
}
