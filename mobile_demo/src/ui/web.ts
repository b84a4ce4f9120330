/** What only a page has; on a phone these do nothing. */
import type { Colors } from './theme';

export const setDocument = (_language: string, _title: string, _colors: Colors): void => undefined;

/** A phone app does not ask: nothing here needs a network but getting a package. */
export const useOnline = (): boolean => true;
