/** Small settings, read at once when the app starts. */
export const kv = {
  get: (key: string): string | null => localStorage.getItem(`kobako.${key}`),
  set: (key: string, value: string): void => localStorage.setItem(`kobako.${key}`, value),
};
