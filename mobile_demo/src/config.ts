/** What whoever builds the app may set, through the environment at build time. */

/** Addresses of packages the app offers at first, separated by spaces; on the web they may be relative. */
export const OFFERED: readonly string[] = (process.env.EXPO_PUBLIC_KOBAKO_PACKAGES ?? '').split(/\s+/).filter(Boolean);

/** PEM of a key the app trusts from the start. */
export const BUILT_IN_KEY: string = process.env.EXPO_PUBLIC_KOBAKO_KEY ?? '';
