/** Tasks on an engine: one prompt, a translation sentence by sentence, a summary of any length of text. */
import { checkAbort } from '../errors';
import type { Engine, Generated, Model } from '../engine/types';
import type { Task } from '../packages/manifest';
import { englishName } from './languages';
import { buildPrompt, type Fields } from './prompt';
import { pack, sentences } from './sentences';

export interface TaskContext {
  readonly engine: Engine;
  readonly model: Model;
  readonly task: Task;
  readonly signal?: AbortSignal;
  readonly onText?: (piece: string) => void;
  /** Told which piece of a long text is under way, counted from 1. */
  readonly onPart?: (part: number, parts: number) => void;
}

/** How much of the text a summary keeps: the whole in one go, or each of several parts. */
export type SummaryLength = 'short' | 'medium' | 'long';
const PARTS: Readonly<Record<SummaryLength, number>> = { short: 1, medium: 3, long: 6 };
const LEAST_PART_TOKENS = 48; // less is no longer worth a sentence of its own

/** One prompt, one answer. */
export function runTask(context: TaskContext, fields: Fields): Promise<Generated> {
  const { engine, model, task, signal, onText } = context;
  const prompt = buildPrompt(task, model.tokenizer, fields);
  return engine.generate(prompt, { maxNewTokens: task.max_new_tokens, stop: task.stop, signal, onText });
}

/** Translate sentence by sentence; line breaks of the text stay where they are. */
export async function translate(context: TaskContext, text: string, source: string, target: string): Promise<string> {
  const parts = sentences(text, source);
  const languages = context.task.fills?.[target] ?? { source: englishName(source), target: englishName(target) };
  const room = budget(context, languages);
  const pieces = parts.flatMap((part) => pack([part], room, (piece) => context.model.tokenizer.encode(piece).length));
  let whole = '';
  const tell = (piece: string) => {
    whole += piece;
    context.onText?.(piece);
  };
  for (const [number, piece] of pieces.entries()) {
    checkAbort(context.signal);
    context.onPart?.(number + 1, pieces.length);
    const [, before = '', words = '', after = ''] = /^(\s*)([\s\S]*?)(\s*)$/.exec(piece) ?? [];
    tell(before);
    if (words !== '') {
      let begun = false; // models begin their answer with a space or a line break
      const onText = (one: string) => {
        const shown = begun ? one : one.trimStart();
        begun ||= shown !== '';
        if (shown !== '') tell(shown);
      };
      await runTask({ ...context, onText }, { ...languages, text: words });
    }
    const glued = after === '' && words !== '' && number + 1 < pieces.length && !isWide(words);
    tell(glued ? ' ' : after);
  }
  return whole;
}

/** Summarize a text of any length: parts that fit are summarized one by one, and the summaries once more if need be. */
export async function summarize(context: TaskContext, text: string, length: SummaryLength): Promise<string> {
  const count = (piece: string) => context.model.tokenizer.encode(piece).length;
  const room = budget(context, {});
  const whole = text.trim();
  const wanted = Math.max(LEAST_PART_TOKENS, Math.ceil(count(whole) / PARTS[length]));
  if (count(whole) <= room && (length === 'short' || count(whole) <= LEAST_PART_TOKENS)) {
    return (await runTask(context, { text: whole })).text.trim();
  }
  const pieces = pack(sentences(whole), Math.min(room, wanted), count);
  if (length !== 'short') return (await eachPart(context, pieces, pieces.length)).join('\n\n');
  // what is said of the parts is not shown: the summary of the summaries is
  const parts = await eachPart({ ...context, onText: undefined }, pieces, pieces.length + 1);
  context.onPart?.(pieces.length + 1, pieces.length + 1);
  const joined = parts.join(' ');
  if (count(joined) < count(whole)) return summarize({ ...context, onPart: undefined }, joined, 'short');
  context.onText?.(joined); // a model that does not shorten would be asked for ever
  return joined;
}

async function eachPart(context: TaskContext, pieces: readonly string[], steps: number): Promise<string[]> {
  const parts: string[] = [];
  for (const [number, piece] of pieces.entries()) {
    checkAbort(context.signal);
    context.onPart?.(number + 1, steps);
    if (number > 0) context.onText?.('\n\n');
    parts.push((await runTask(context, { text: piece.trim() })).text.trim());
  }
  return parts;
}

/** Tokens of text that fit beside the prompt around it and the answer. */
function budget(context: TaskContext, fields: Fields): number {
  const { model, task } = context;
  const around = buildPrompt(task, model.tokenizer, { ...fields, text: '' }).ids.length;
  const free = model.manifest.context_tokens - around - task.max_new_tokens - 8; // joined text may split otherwise
  return Math.max(16, free);
}

const isWide = (text: string): boolean => /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]$/u.test(text);
