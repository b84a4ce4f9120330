/** Words of the interface in the chosen language. */
import { settings, type Language } from '../state/settings';
import { useStore } from '../state/store';
import { en, type Key } from './en';
import { ja } from './ja';

export type { Key };
export type Translate = (key: Key, fields?: Readonly<Record<string, string | number>>) => string;

const WORDS: Readonly<Record<Language, Record<Key, string>>> = { en, ja };

export const translator =
  (language: Language): Translate =>
  (key, fields = {}) =>
    WORDS[language][key].replace(/\{(\w+)\}/g, (mark, name: string) => String(fields[name] ?? mark));

export const useWords = (): Translate => translator(useStore(settings).language);
