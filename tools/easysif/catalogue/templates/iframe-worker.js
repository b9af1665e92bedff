// SPDX-License-Identifier: GPL-2.0-only
// Browsers start no worker for a page that was opened as a file. The search of the theme then runs in a hidden frame.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      document.documentElement.append(frame);
      const inside = frame.contentWindow, script = frame.contentDocument.createElement('script');
      inside.postMessage = data => this.dispatchEvent(new MessageEvent('message', {data}));
      this.ready = new Promise(resolve => { script.onload = () => resolve(inside); });
      script.src = new URL(url, location);
      frame.contentDocument.head.append(script);
    }

    postMessage(data) {
      this.ready.then(inside => inside.dispatchEvent(new MessageEvent('message', {data})));
    }
  };
}
