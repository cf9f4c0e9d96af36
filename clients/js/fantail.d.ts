/** Anything that a message can carry: text, an object or a list, or bytes. */
export type Payload = string | object | Uint8Array;

export interface Message<T = any> {
  topic: string;
  offset: number;
  /** Milliseconds since 1970 by the server's clock; event streams do not tell it. */
  time?: number;
  /** An object or list as it was published, other text as a string, binary as bytes. */
  data: T;
  /** `EPOCH:OFFSET` of this message: what `since` takes. */
  position: string;
}

export interface Gap {
  topic: string;
  kind: "expired" | "other_epoch" | "ahead" | "dropped";
  /** The offset of the oldest message that can still be had. */
  oldest: number;
}

export interface SubscribeOptions<T = any> {
  onMessage?(message: Message<T>): void;
  /** Messages are missing, and which. Where there is `getState`, it is asked again behind it. */
  onGap?(gap: Gap): void;
  /** The subscription has begun, or gone on after a reconnect: what follows are the messages behind `position`. */
  onSubscribed?(info: { topic: string; position: string; recovered: boolean; again: boolean }): void;
  /** The subscription can't be had, or `getState` has failed. What passes by itself is tried again. */
  onError?(error: unknown): void;
  /**
   * Loads what the messages are changes of. It is asked once the subscription has begun, and again behind a gap; messages
   * that come meanwhile are kept and follow. A position that it returns is how far the state has come: messages up to
   * there are left out.
   */
  getState?(position: string): void | string | Promise<void | string>;
  /** Begin behind this position. */
  since?: string;
  /** Begin with so many of the newest messages that are kept; long polls begin with what comes. */
  history?: number;
}

/** A message that came by a pattern: its topic, and no position to go on from. */
export interface PatternMessage<T = any> {
  topic: string;
  /** Event streams tell no offset of these. */
  offset?: number;
  time?: number;
  data: T;
}

export interface PatternOptions<T = any> {
  onMessage?(message: PatternMessage<T>): void;
  /** Messages of one topic are missing: this client read too slowly. */
  onGap?(gap: Gap): void;
  /**
   * The subscription has begun, or, where it does so `again`, begun anew after a reconnect: what was published meanwhile
   * is missing.
   */
  onSubscribed?(info: { pattern: string; again: boolean }): void;
  /** The subscription can't be had, or `getState` has failed. `not_possible`: not by long polls, and not of an older server. */
  onError?(error: unknown): void;
  /** Loads what the messages are changes of: once it has begun, each time that it has begun anew, and behind a gap. */
  getState?(): void | Promise<void>;
}

export interface PatternSubscription {
  readonly pattern: string;
  close(): void;
}

export interface Subscription {
  readonly topic: string;
  /** Behind the newest message that has come; before the first, where the subscription began. */
  readonly position: string | undefined;
  close(): void;
}

export interface Published {
  topic: string;
  /** What the application says, of a topic whose messages go to it. Then there is neither `epoch` nor `offset`. */
  data?: unknown;
  epoch: string;
  offset: number;
}

export type State = "connecting" | "open" | "waiting" | "closed";
export type Transport = "websocket" | "sse" | "poll";

/**
 * Why a connection ended. `code` is that of a WebSocket's close, or the status of an answer that was a refusal: 401 and 403 that
 * there is no good token, 429 and 503 that it has to wait.
 */
export interface End {
  code?: number;
  reason?: string;
  /** Milliseconds until the next try, where the state is "waiting". */
  retryMs?: number;
}

export type Token = string | null | undefined | void;

export interface Options {
  /** Which ways to use, the first first: `["websocket", "sse", "poll"]`. */
  transports?: Transport[];
  /** Further subprotocols to offer. */
  protocols?: string[];
  /**
   * A token (docs/tokens.md), or a promise of one; nothing, and none is shown. It is asked for each try to connect, and when the
   * one that there is ends soon; `anew` where one that was kept won't do, above all because it was not taken. What it throws
   * ends the try.
   */
  getToken?(anew: boolean): Token | Promise<Token>;
  /** Milliseconds of silence after which a WebSocket is asked whether it lives: 25,000. */
  heartbeat?: number;
  /** Milliseconds that a publish waits for its answer: 10,000. */
  timeout?: number;
  /** Objects and lists as the text that was published, not parsed; long polls write it anew. `false`. */
  raw?: boolean;
  onState?(state: State, end?: End): void;
  /** What the application's backend has to say (docs/integrate.md), before all else on each WebSocket. */
  onWelcome?(data: any): void;
  /** What belongs to no subscription and no publish: above all that the server has ended the conversation for good. */
  onError?(error: FantailError): void;
  /** A WebSocket for where there is none, such as that of npm's `ws` in Node 20. */
  WebSocket?: any;
  fetch?: typeof fetch;
}

export class FantailError extends Error {
  /**
   * A code of the protocol (docs/protocol.md), or `closed`, `timeout` (never sent), `outcome_unknown` (sent, and nobody
   * knows), `not_possible` (no WebSocket, or no patterns), `unsubscribed` (by the operator), `ended` (for good).
   */
  code: string;
  topic?: string;
  constructor(code: string, message: string, topic?: string);
}

export class Fantail {
  constructor(url: string, options?: Options);
  readonly state: State;
  readonly transport: Transport | null;
  subscribe<T = any>(topic: string, options?: SubscribeOptions<T> | ((message: Message<T>) => void)): Subscription;
  /** All topics that a pattern means, `prices/*` or `prices/**`, from now on. */
  subscribePattern<T = any>(pattern: string, options?: PatternOptions<T> | ((message: PatternMessage<T>) => void)): PatternSubscription;
  publish(topic: string, data: Payload | ArrayBuffer): Promise<Published>;
  wake(): void;
  close(): void;
}

export function connect(url: string, options?: Options): Fantail;
