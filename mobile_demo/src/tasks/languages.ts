/** Languages by their BCP 47 codes: in English for prompts, in themselves for people. */
import type { Task } from '../packages/manifest';

interface Language {
  readonly english: string;
  readonly own: string;
  /** What only, or mostly, this language's writing has. */
  readonly script?: RegExp;
  /** Frequent little words, for telling Latin-script languages apart. */
  readonly words?: string;
}

export const LANGUAGES: Readonly<Record<string, Language>> = {
  en: { english: 'English', own: 'English', words: 'the and of to is in it you that for was with are this' },
  fr: { english: 'French', own: 'Français', words: 'le la les et des est un une dans que pour pas vous ce qui sur' },
  de: { english: 'German', own: 'Deutsch', words: 'der die das und ist nicht ein eine zu den mit auf ich sie es' },
  es: { english: 'Spanish', own: 'Español', words: 'el la los las y de que en un una es por con para no se' },
  it: { english: 'Italian', own: 'Italiano', words: 'il lo la gli e di che in un una è per non con sono si' },
  pt: { english: 'Portuguese', own: 'Português', words: 'o a os as e de que em um uma é não para com do da' },
  nl: { english: 'Dutch', own: 'Nederlands', words: 'de het een en van is dat in niet op te zijn met ik je' },
  pl: { english: 'Polish', own: 'Polski', words: 'i w na nie to się z że do jest jak po co ale' },
  ru: { english: 'Russian', own: 'Русский', script: /\p{Script=Cyrillic}/u },
  ja: { english: 'Japanese', own: '日本語', script: /[\p{Script=Hiragana}\p{Script=Katakana}]/u },
  zh: { english: 'Chinese', own: '中文', script: /\p{Script=Han}/u },
  ko: { english: 'Korean', own: '한국어', script: /\p{Script=Hangul}/u },
  ar: { english: 'Arabic', own: 'العربية', script: /\p{Script=Arabic}/u },
  hi: { english: 'Hindi', own: 'हिन्दी', script: /\p{Script=Devanagari}/u },
};

/**
 * What a translate task translates from and into. One with `fills` names its targets and is written for English;
 * any other takes each of its languages both ways.
 */
export function directions(task: Pick<Task, 'languages' | 'fills'>): { sources: readonly string[]; targets: readonly string[] } {
  const filled = Object.keys(task.fills ?? {});
  if (filled.length > 0) return { sources: ['en'], targets: filled };
  const known = task.languages.length > 0 ? task.languages : ['en', 'fr', 'de', 'es', 'ja'];
  return { sources: known, targets: known };
}

/** The name prompts use: "French"; a code that is not known stands for itself. */
export const englishName = (code: string): string => LANGUAGES[code]?.english ?? code;

/** The name people read in the picker. */
export const ownName = (code: string): string => LANGUAGES[code]?.own ?? code;

/** Which of `candidates` the text is written in, or null when that cannot be said. */
export function detect(text: string, candidates: readonly string[]): string | null {
  for (const code of ['ja', 'ko', 'ru', 'ar', 'hi', 'zh']) {
    if (candidates.includes(code) && LANGUAGES[code]?.script?.test(text)) return code;
  }
  const words = new Set(text.toLowerCase().match(/\p{L}+/gu) ?? []);
  const scored = candidates
    .map((code) => ({ code, hits: (LANGUAGES[code]?.words ?? '').split(' ').filter((word) => words.has(word)).length }))
    .sort((one, other) => other.hits - one.hits);
  const [best, second] = scored;
  return best && best.hits > 0 && best.hits > (second?.hits ?? 0) ? best.code : null;
}
