// Keeps the bars of {% iteration_progress %} up to date. All that is shown comes from the server, as text.
//
// Events, which bubble; their detail is the JSON of the last answer:
//   soc-tasks-progress  it has got on, or is in another state
//   soc-tasks-ended     it has succeeded, failed or been cancelled, while the page was open

// Milliseconds between two questions: at first, and where nothing changes or nobody answers, growing to the slowest.
const FIRST = 1000;
const SLOWEST = 15000;
const GROWTH = 1.5;

class ProgressBar extends HTMLElement {
  #timer = 0;
  #pause = FIRST;
  #mark = "";
  #asking = null;

  connectedCallback() {
    if (this.hasAttribute("data-ended")) return;
    document.addEventListener("visibilitychange", this.#look);
    this.#plan(FIRST);
  }

  disconnectedCallback() {
    this.#stop();
  }

  // Whoever comes back to the page sees the present at once.
  #look = () => {
    if (!document.hidden) this.#ask();
  };

  #plan(pause) {
    this.#pause = pause;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), pause);
  }

  #stop() {
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#look);
    this.#asking?.abort();
    this.#asking = null;
  }

  async #ask() {
    // A page that nobody sees asks nothing: #look goes on.
    if (document.hidden || this.#asking) return;
    const asking = (this.#asking = new AbortController());
    clearTimeout(this.#timer);
    let answer = null;
    let refused = false;
    try {
      const response = await fetch(this.dataset.url, {
        cache: "no-store",
        headers: { Accept: "application/json" },
        signal: asking.signal,
      });
      // The time of the token is over, or the site has no such URL any more: asking again would not help.
      refused = response.status === 403 || response.status === 404;
      if (response.ok) answer = await response.json();
    } catch (error) {
      // No answer, or none of ours; it is asked again, if the bar is still there.
      console.debug("soc_tasks: no answer to a question about progress", error);
    }
    if (this.#asking !== asking) return;
    this.#asking = null;
    if (refused) this.#lose();
    else if (answer) this.#take(answer);
    else this.#plan(Math.min(this.#pause * GROWTH, SLOWEST));
  }

  #take(answer) {
    // A rate that fades is no progress.
    const mark = [answer.status, answer.held, answer.done, answer.failed].join();
    const moved = mark !== this.#mark;
    this.#mark = mark;
    this.#show(answer);
    if (moved) this.#tell("soc-tasks-progress", answer);
    if (answer.ended) {
      this.dataset.ended = "";
      this.#stop();
      this.#tell("soc-tasks-ended", answer);
    } else {
      this.#plan(moved ? FIRST : Math.min(this.#pause * GROWTH, SLOWEST));
    }
  }

  #show(answer) {
    const bar = this.querySelector("progress");
    if (answer.share === null) bar.removeAttribute("value");
    else bar.value = answer.share;
    this.dataset.status = answer.status;
    this.#write("state", answer.text.state);
    this.#write("detail", answer.text.detail);
  }

  #lose() {
    this.#stop();
    this.dataset.stale = "";
    this.#write("state", this.dataset.lost);
  }

  #write(part, text) {
    const element = this.querySelector(`.soc-tasks-progress-${part}`);
    // A text that is written again would be read out again.
    if (element.textContent !== text) element.textContent = text;
  }

  #tell(name, answer) {
    this.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: answer }));
  }
}

if (!customElements.get("soc-tasks-progress")) customElements.define("soc-tasks-progress", ProgressBar);
