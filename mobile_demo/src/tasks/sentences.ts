/** Long text in pieces that a model can take, cut where sentences end. */

/** Sentences with the white space that follows them: joined they are the text again. */
export function sentences(text: string, language?: string): string[] {
  const parts: string[] = [];
  for (const line of text.split(/(?<=\n)/)) parts.push(...inLine(line, language));
  return parts.filter((part) => part !== '');
}

function inLine(line: string, language?: string): string[] {
  if (typeof Intl !== 'undefined' && 'Segmenter' in Intl) {
    const segmenter = new Intl.Segmenter(language, { granularity: 'sentence' });
    return Array.from(segmenter.segment(line), (one) => one.segment);
  }
  return splitPlainly(line); // Hermes has no Intl.Segmenter
}

/** After . ! ? and white space, and after 。！？ at once. */
export function splitPlainly(line: string): string[] {
  return line.split(/(?<=[.!?…]["'”’)\]]*\s+)(?=[^\s\p{Ll}])|(?<=[。！？][」』）]*)(?![」』）\s])/u);
}

/**
 * Neighbouring sentences together in pieces of at most `budget` by `measure`. A sentence beyond the budget is cut at
 * white space, and where there is none, anywhere. Joined, the pieces are the text again.
 */
export function pack(parts: readonly string[], budget: number, measure: (text: string) => number): string[] {
  const pieces: string[] = [];
  let current = '';
  for (const part of parts) {
    if (current !== '' && measure(current + part) > budget) {
      pieces.push(current);
      current = '';
    }
    if (measure(part) <= budget) current += part;
    else {
      const cut = cutToFit(part, budget, measure);
      pieces.push(...cut.slice(0, -1));
      current = cut[cut.length - 1] ?? '';
    }
  }
  if (current !== '') pieces.push(current);
  return pieces;
}

function cutToFit(text: string, budget: number, measure: (text: string) => number): string[] {
  if (text.length <= 1 || measure(text) <= budget) return [text];
  const middle = Math.floor(text.length / 2);
  const space = text.lastIndexOf(' ', middle);
  let at = space > text.length / 4 ? space + 1 : middle;
  if (isLowSurrogate(text, at)) at += 1; // never through the middle of a character
  if (at >= text.length) return [text];
  return [...cutToFit(text.slice(0, at), budget, measure), ...cutToFit(text.slice(at), budget, measure)];
}

const isLowSurrogate = (text: string, at: number): boolean => /[\uDC00-\uDFFF]/.test(text.charAt(at));
