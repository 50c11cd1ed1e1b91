/** Text to token ids and back, by Hugging Face's tokenizers library; chat templates by its Jinja. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { makeDetokenizer, type StreamingDetokenizer } from "./detokenizer.ts";

export interface ChatMessage {
  role: string;
  content: string;
  [key: string]: unknown;
}

export interface ChatTemplateOptions {
  /** End with the opening of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** Further variables of the template, such as `tools` or `enable_thinking`. */
  [variable: string]: unknown;
}

/** tokenizer_config.json, as far as it is used here. Special tokens are texts, or objects with the text in `content`. */
interface TokenizerConfig {
  bos_token?: unknown;
  eos_token?: unknown;
  unk_token?: unknown;
  pad_token?: unknown;
  chat_template?: string | readonly { name: string; template: string }[];
  [key: string]: unknown;
}

const contentOf = (token: unknown): string | undefined => {
  if (typeof token === "string") return token;
  return typeof token === "object" && token !== null && "content" in token ? String(token.content) : undefined;
};

/** The template of a name, or the one called "default". */
function templateOf(chatTemplate: TokenizerConfig["chat_template"], folder: string): string | undefined {
  const file = join(folder, "chat_template.jinja");
  if (existsSync(file)) return readFileSync(file, "utf8");
  if (typeof chatTemplate === "string") return chatTemplate;
  if (Array.isArray(chatTemplate)) return (chatTemplate.find((t) => t.name === "default") ?? chatTemplate[0])?.template;
  const json = join(folder, "chat_template.json");
  return existsSync(json) ? readJson<{ chat_template?: string }>(json).chat_template : undefined;
}

/** Reads a JSON file; the error of a broken one names it. */
export function readJson<T>(path: string): T {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as T;
  } catch (error) {
    throw new Error(`[load] can not read ${path}: ${(error as Error).message}`);
  }
}

export class Tokenizer {
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  /** Ids that end a text. */
  readonly eosTokenIds: ReadonlySet<number>;
  /** Jinja source; undefined when the checkpoint has none. */
  readonly chatTemplate: string | undefined;
  readonly #tokenizer: HubTokenizer;
  readonly #config: TokenizerConfig;
  readonly #added: ReadonlySet<number>;
  readonly #makeDetokenizer: () => StreamingDetokenizer;
  #render: ((variables: Record<string, unknown>) => string) | undefined;

  constructor(
    tokenizer: HubTokenizer,
    json: { decoder?: object | null; added_tokens?: readonly { id: number }[] },
    config: TokenizerConfig,
    folder: string,
    eosTokenIds: readonly number[],
  ) {
    this.#tokenizer = tokenizer;
    this.#config = config;
    this.#added = new Set(json.added_tokens?.map((t) => t.id));
    this.bosToken = contentOf(config.bos_token);
    this.eosToken = contentOf(config.eos_token);
    const own = this.eosToken === undefined ? undefined : this.tokenToId(this.eosToken);
    this.eosTokenIds = new Set(eosTokenIds.length > 0 ? eosTokenIds : own === undefined ? [] : [own]);
    this.chatTemplate = templateOf(config.chat_template, folder);
    const source = {
      idToToken: (id: number) => this.idToToken(id),
      isAddedToken: (id: number) => this.#added.has(id),
      decode: (ids: readonly number[]) => this.decode(ids),
    };
    this.#makeDetokenizer = makeDetokenizer(source, json.decoder);
  }

  encode(text: string, { addSpecialTokens = true }: { addSpecialTokens?: boolean } = {}): number[] {
    return this.#tokenizer.encode(text, { add_special_tokens: addSpecialTokens }).ids;
  }
  decode(ids: readonly number[], { skipSpecialTokens = false }: { skipSpecialTokens?: boolean } = {}): string {
    return ids.length === 0 ? "" : this.#tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false });
  }
  tokenToId(token: string): number | undefined {
    return this.#tokenizer.token_to_id(token);
  }
  idToToken(id: number): string | undefined {
    return this.#tokenizer.id_to_token(id);
  }
  makeDetokenizer(): StreamingDetokenizer {
    return this.#makeDetokenizer();
  }

  /** Writes a conversation as the prompt that the model was trained on. Encode it without adding special tokens. */
  async applyChatTemplate(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): Promise<string> {
    if (this.chatTemplate === undefined) throw new Error("[applyChatTemplate] this tokenizer has no chat template");
    const { addGenerationPrompt = true, ...variables } = options;
    const render = (this.#render ??= await compileTemplate(this.chatTemplate));
    const special = (key: "bos_token" | "eos_token" | "unk_token" | "pad_token"): string => contentOf(this.#config[key]) ?? "";
    return render({
      messages,
      add_generation_prompt: addGenerationPrompt,
      bos_token: special("bos_token"),
      eos_token: special("eos_token"),
      unk_token: special("unk_token"),
      pad_token: special("pad_token"),
      ...variables,
    });
  }
}

async function compileTemplate(source: string): Promise<(variables: Record<string, unknown>) => string> {
  const { Template } = await import("@huggingface/jinja");
  const template = new Template(source);
  return (variables) => template.render(variables);
}

/** The tokenizer of a model folder; undefined when the folder has none. */
export async function loadTokenizer(folder: string, eosTokenIds: readonly number[] = []): Promise<Tokenizer | undefined> {
  const file = join(folder, "tokenizer.json");
  if (!existsSync(file)) {
    const legacy = ["tokenizer.model", "vocab.json"].find((name) => existsSync(join(folder, name)));
    if (legacy) throw new Error(`[load] ${folder} has ${legacy} but no tokenizer.json; only tokenizer.json is supported`);
    return undefined;
  }
  const json = readJson<ConstructorParameters<typeof Tokenizer>[1]>(file);
  const configFile = join(folder, "tokenizer_config.json");
  const config = existsSync(configFile) ? readJson<TokenizerConfig>(configFile) : {};
  const { Tokenizer: HubTokenizer } = await import("@huggingface/tokenizers");
  let tokenizer: HubTokenizer;
  try {
    tokenizer = new HubTokenizer(json, config);
  } catch (error) {
    throw new Error(`[load] ${file} is no tokenizer that can be used: ${(error as Error).message}`);
  }
  return new Tokenizer(tokenizer, json, config, folder, eosTokenIds);
}
