/* A page that was opened from the disk may start no worker, and the search is one: here it runs in a hidden frame of the page. */
"use strict";
if (location.protocol === "file:") {
  class FrameWorker extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html><title>search</title><body>";
      frame.addEventListener("load", () => this.begin(frame.contentWindow, address), { once: true });
      document.body.append(frame);
    }

    begin(inside, address) {
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...names) => {
        for (const name of names) await this.load(inside, name);
      };
      this.load(inside, address).then(() => {
        this.inside = inside;
        for (const data of this.waiting.splice(0)) this.postMessage(data);
      });
    }

    load(inside, address) {
      return new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        script.src = address;
        script.onload = done;
        script.onerror = () => failed(new Error(`${address} is missing.`));
        inside.document.body.append(script);
      });
    }

    postMessage(data) {
      if (this.inside) this.inside.dispatchEvent(new MessageEvent("message", { data }));
      else this.waiting.push(data);
    }

    terminate() {
      this.inside?.frameElement.remove();
    }
  }
  window.Worker = window.IFrameWorker = FrameWorker;
}
