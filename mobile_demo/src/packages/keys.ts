/** Public keys a user trusts: ECDSA P-256 in PEM form, known by a fingerprint. */
import { p256 } from '@noble/curves/nist.js';

import { concat, digestOf, fromBase64, utf8 } from '../bytes';
import { AppError } from '../errors';

export interface TrustedKey {
  readonly name: string;
  readonly pem: string;
}

// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point itself (RFC 5480)
const SPKI_PREFIX = fromBase64('MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE');
const POINT_BYTES = 65;

/** DER bytes of a PEM public key. Raises AppError `untrusted` for anything but a P-256 public key. */
export function spkiOf(pem: string): Uint8Array<ArrayBuffer> {
  const body = /-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----/.exec(pem)?.[1];
  const der = body === undefined ? new Uint8Array() : fromBase64(body.replace(/\s/g, ''));
  const known = der.length === SPKI_PREFIX.length - 1 + POINT_BYTES && SPKI_PREFIX.every((byte, i) => der[i] === byte);
  if (!known) throw new AppError('untrusted', 'this is not the public half of an ECDSA P-256 key in PEM form');
  return der;
}

/** What model_signing writes as the key's hint: SHA-256 of the PEM text in its one canonical form. */
export function fingerprint(pem: string): string {
  const lines = btoa(String.fromCharCode(...spkiOf(pem))).match(/.{1,64}/g) ?? [];
  return digestOf(utf8(`-----BEGIN PUBLIC KEY-----\n${lines.join('\n')}\n-----END PUBLIC KEY-----\n`));
}

/** Checks a DER signature over `message`: WebCrypto where there is one, @noble/curves elsewhere (Hermes has none). */
export async function verifyEcdsa(pem: string, signature: Uint8Array, message: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const spki = spkiOf(pem);
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return verifyWithNoble(spki, signature, message);
  const raw = derToRaw(signature);
  if (raw === null) return false;
  const key = await subtle.importKey('spki', spki, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['verify']);
  return subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, key, raw, message);
}

export function verifyWithNoble(spki: Uint8Array, signature: Uint8Array, message: Uint8Array): boolean {
  try {
    // high-S signatures are valid ECDSA: OpenSSL writes them half of the time
    return p256.verify(signature, message, spki.slice(-POINT_BYTES), { format: 'der', lowS: false });
  } catch {
    return false;
  }
}

/** ASN.1 SEQUENCE of two INTEGERs → 64 bytes r‖s, as WebCrypto wants them; null when it is not that. */
export function derToRaw(der: Uint8Array): Uint8Array<ArrayBuffer> | null {
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return null;
  const r = integerAt(der, 2);
  const s = r && integerAt(der, r.end);
  return r && s && s.end === der.length ? concat([r.bytes, s.bytes]) : null;
}

function integerAt(der: Uint8Array, at: number): { bytes: Uint8Array; end: number } | null {
  const length = der[at + 1];
  if (der[at] !== 0x02 || length === undefined || length === 0 || length > 33 || at + 2 + length > der.length) return null;
  let digits = der.slice(at + 2, at + 2 + length);
  if (digits[0] === 0) digits = digits.slice(1);
  if (digits.length > 32) return null;
  const bytes = new Uint8Array(32);
  bytes.set(digits, 32 - digits.length);
  return { bytes, end: at + 2 + length };
}
