/** A task's prompt from the user's text, exactly as pipeline/tasks.py builds and the pipeline validates it. */
import type { Message, Task } from '../packages/manifest';
import type { ShippedTokenizer } from './tokenizer';

export type Fields = Readonly<Record<string, string>>;

/** One prompt in the three forms that engines take. */
export interface Prompt {
  /** The filled-in messages, for engines that apply the package's template themselves; empty for base models. */
  readonly messages: readonly Message[];
  readonly text: string;
  readonly ids: readonly number[];
}

export function buildPrompt(task: Task, tokenizer: ShippedTokenizer, fields: Fields): Prompt {
  const messages = task.messages.map((message) => ({ ...message, content: fill(message.content, fields) }));
  const text = messages.length > 0 ? tokenizer.render(messages) : fill(task.prompt, fields);
  return { messages, text, ids: tokenizer.encodePrompt(text) };
}

/** Fields are put in literally: braces in the user's text mean nothing. */
export function fill(template: string, fields: Fields): string {
  const parts = template.split('{text}').map((part) => {
    let filled = part;
    for (const [name, value] of Object.entries(fields)) {
      if (name !== 'text') filled = filled.split(`{${name}}`).join(value);
    }
    return filled;
  });
  return parts.join(fields.text ?? '');
}
