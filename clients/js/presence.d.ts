import type { FantailError, Options } from "./fantail.js";

export interface Changes {
  /** Who has come. */
  joined: string[];
  /** Who has gone. */
  left: string[];
  /** Whose state is another, or has ended. */
  states: string[];
}

export interface FollowOptions {
  /**
   * The list is known, or something of it has changed. After a reconnect and a gap it is loaded again, and what has changed
   * meanwhile is told at once.
   */
  onChange?(changes: Changes): void;
  /** The list can't be had. What passes by itself is tried again. */
  onError?(error: FantailError): void;
}

export interface PresenceList<S = any> {
  readonly topic: string;
  /** The state of each member, by its id; `undefined` for none. Empty where the topic's rule only counts. */
  readonly members: ReadonlyMap<string, S | undefined>;
  readonly count: number;
  /** As whom this client is on the list, once it is subscribed to the topic. */
  readonly self: string | undefined;
  /** Whether changes are being told; `false` until the list is known, and while there is no WebSocket. */
  readonly live: boolean;
  /**
   * Says something of this client's member, for so many seconds at most; `null` ends it. The promise fails with a code of the
   * protocol, `not_possible` without a WebSocket, or `outcome_unknown`.
   */
  setState(state: S | null, seconds?: number): Promise<void>;
  close(): void;
}

export class Presence {
  /** Options for `connect`, of one client. */
  options(options?: Options): Options;
  follow<S = any>(topic: string, options?: FollowOptions): PresenceList<S>;
}
