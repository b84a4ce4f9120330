/** The tokenizer as it ships: `tokenizer.json` and `tokenizer_config.json`; agrees with pipeline/tokens.py. */
import { Template } from '@huggingface/jinja';
import { Tokenizer } from '@huggingface/tokenizers';

import { fromUtf8 } from '../bytes';
import { AppError } from '../errors';
import type { Message } from '../packages/manifest';

interface Config {
  readonly chat_template?: string;
  readonly bos_token?: string | null;
  readonly eos_token?: string | null;
}

export class ShippedTokenizer {
  private readonly tokenizer: Tokenizer;
  private readonly config: Config;
  private readonly template: Template | null;

  constructor(tokenizerJson: Uint8Array, configJson: Uint8Array) {
    this.config = JSON.parse(fromUtf8(configJson));
    // text goes out as the tokens say: no tidying of spaces before punctuation
    const config = { ...this.config, clean_up_tokenization_spaces: false };
    this.tokenizer = new Tokenizer(JSON.parse(fromUtf8(tokenizerJson)), config);
    this.template = this.config.chat_template ? new Template(this.config.chat_template) : null;
  }

  /** Token ids of `text`; special tokens written in it are recognized, none are added. */
  encode(text: string): number[] {
    return Array.from(this.tokenizer.encode(text, { add_special_tokens: false }).ids, Number);
  }

  /** Token ids of a rendered prompt, with the tokenizer's own prefix (bos) unless the template wrote it. */
  encodePrompt(prompt: string): number[] {
    const bos = this.config.bos_token;
    if (bos && prompt.startsWith(bos)) return this.encode(prompt);
    return Array.from(this.tokenizer.encode(prompt, { add_special_tokens: true }).ids, Number);
  }

  /** Text of `ids`, special tokens left out. */
  decode(ids: readonly number[]): string {
    return ids.length === 0 ? '' : this.tokenizer.decode([...ids], { skip_special_tokens: true });
  }

  /** The chat template applied, ready to be continued. */
  render(messages: readonly Message[]): string {
    if (!this.template) throw new AppError('engine', 'the model has no chat template');
    return this.template.render({
      messages,
      add_generation_prompt: true,
      bos_token: this.config.bos_token ?? '',
      eos_token: this.config.eos_token ?? '',
    });
  }
}
