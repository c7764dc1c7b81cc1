// What must happen in the browser at once. Everything else is asked of Python: `data-act` names what to ask for, and
// the element's other data fields go along. `data-do` and `data-change` are dealt with here.
window.docstral = (() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const field = () => document.querySelector('#question textarea');
  const narrow = matchMedia('(width <= 768px)');
  const darkSystem = matchMedia('(prefers-color-scheme: dark)');

  // Storage can be forbidden, as in some frames: then nothing is remembered, and everything else works.
  function recall(name) { try { return localStorage.getItem(`docstral-${name}`); } catch { return null; } }
  function remember(name, value) { try { localStorage.setItem(`docstral-${name}`, value); } catch { /* not kept */ } }
  // A question that is being written outlives a page that is loaded anew, as Gradio does after it has lost the server.
  let draft = '';
  try { draft = sessionStorage.getItem('docstral-draft') ?? ''; } catch { /* not kept */ }
  addEventListener('pagehide', () => {
    try { sessionStorage.setItem('docstral-draft', field()?.value || draft); } catch { /* not kept */ }
  });
  function goOnWriting() {
    if (draft && field() && !field().value) {
      field().value = draft;
      field().dispatchEvent(new Event('input', {bubbles: true}));
    }
    draft = '';
  }
  function setCookie(name, value) {
    const framed = location.protocol === 'https:' ? 'SameSite=None; Secure; Partitioned' : 'SameSite=Lax';
    document.cookie = `docstral_${name}=${value}; Path=/; Max-Age=31536000; ${framed}`;
  }

  // The page is laid out in English; readers of French first see it when its words are theirs.
  const language = /docstral_language=(\w+)/.exec(document.cookie)?.[1] ?? navigator.language;
  if (language.startsWith('fr')) {
    root.classList.add('translating');
    setTimeout(() => root.classList.remove('translating'), 4000);
  }

  // --- Python
  let ask = null;
  const waiting = [];
  function act(name, data = {}) {
    data = {...data, growing: document.querySelector('#growing .answer')?.id ?? ''};
    if (['open', 'rename', 'delete', 'restore'].includes(name) && byId('find')) byId('find').value = '';  // all are listed
    ask ? ask({...data, act: name}) : waiting.push([name, data]);
  }
  function connect(trigger) {
    ask = trigger;
    document.body.append(teller);  // not in the page that waits, which has the same script
    waiting.splice(0).forEach((each) => act(...each));
  }

  // --- Theme: Gradio sets and clears `dark` by the system; what the reader chose wins
  function paint() {
    const chosen = recall('theme') ?? 'system';
    const dark = chosen === 'dark' || (chosen === 'system' && darkSystem.matches);
    for (const element of [root, document.body]) element?.classList.toggle('dark', dark);
    root.style.colorScheme = dark ? 'dark' : 'light';
  }
  darkSystem.addEventListener('change', paint);
  paint();
  new MutationObserver(paint).observe(root, {attributes: true, attributeFilter: ['class']});
  addEventListener('DOMContentLoaded', () => {
    paint();
    new MutationObserver(paint).observe(document.body, {attributes: true, attributeFilter: ['class']});
    new MutationObserver(settle).observe(document.body,
      {subtree: true, childList: true, attributes: true, attributeFilter: ['data-value', 'data-seconds', 'aria-busy']});
  });

  // --- State that is a property and not an attribute: Python writes it as a field, or the browser knows it
  let settling = false;
  function settle() {
    if (settling) return;
    settling = true;
    requestAnimationFrame(() => {
      settling = false;
      for (const control of document.querySelectorAll('[data-change][data-value]')) {
        if (control.type === 'checkbox') control.checked = control.dataset.value === 'on';
        else if (control.value !== control.dataset.value) control.value = control.dataset.value;
      }
      for (const radio of document.querySelectorAll('.radios input')) {
        radio.checked = radio.value === (radio.name === 'theme' ? recall('theme') ?? 'system' : root.lang);
      }
      const toggle = document.querySelector('#sidebar .toggle-button');
      const name = document.querySelector('[data-toggle]')?.dataset.toggle;
      if (name) toggle?.setAttribute('aria-label', name);
      count();
      tell();
    });
  }

  // --- An answer is told to screen readers once, when it is whole, and not with each piece that comes
  const teller = Object.assign(document.createElement('div'), {className: 'sr-only'});
  teller.setAttribute('role', 'status');
  let untold = false;
  function tell() {
    const answer = document.querySelector('#growing .answer');
    const waiting = answer?.querySelector('.waiting')?.textContent;
    if (waiting && !untold) teller.textContent = waiting;
    const busy = answer?.getAttribute('aria-busy') === 'true'; // not ariaBusy: Firefox did not have it for long
    if (untold && !busy) teller.textContent = answer?.querySelector('.doc').textContent ?? '';
    untold = busy;
  }

  // --- Seconds of a notice, counted down
  let counted = null, clock = 0;
  function count() {
    const place = document.querySelector('.countdown');
    if (place === counted && place?.textContent) return;
    clearInterval(clock);
    counted = place;
    if (!place) return;
    let left = Number(place.dataset.seconds);
    const show = () => { place.textContent = left > 0 ? ` ${left} s` : ''; left -= 1; };
    show();
    clock = setInterval(() => (left >= 0 && place.isConnected ? show() : clearInterval(clock)), 1000);
  }

  // --- The end of a growing answer stays in view, unless the reader has scrolled up
  let atEnd = true, before = 0;
  const end = () => root.scrollHeight;
  addEventListener('scroll', () => {
    if (scrollY < before) atEnd = false;  // growth alone does not leave the end
    if (innerHeight + scrollY > end() - 60) atEnd = true;
    before = scrollY;
    hidePreview();
  }, {passive: true});
  const growth = new ResizeObserver(() => {
    if (document.querySelector('.welcome')) scrollTo(0, 0);
    else if (atEnd && document.querySelector('.answer')) scrollTo(0, end());
  });

  // A tab is drawn a moment after it is chosen.
  async function go(id) {
    for (let frame = 0; frame < 120; frame++) {
      const place = byId(id);
      if (place?.offsetParent) {
        atEnd = false;
        place.scrollIntoView({block: 'start'});
        return place.focus({preventScroll: true});
      }
      await new Promise(requestAnimationFrame);
    }
  }

  // --- Dialogs
  async function open(name) {
    for (let frame = 0; frame < 60 && !byId(name); frame++) await new Promise(requestAnimationFrame);
    if (byId(name)?.open === false) byId(name).showModal();
  }
  addEventListener('close', (event) => {
    if (event.target.id === 'landing') remember('seen', 'yes');
  }, true);

  // --- A line that says what has happened, with a way to take it back
  let fading = 0, keyed = false;  // whether the last click was a key's
  function say(text, action, seconds = action ? 10 : 4) {
    let toast = byId('toast');
    if (!toast) {
      toast = Object.assign(document.createElement('div'), {id: 'toast'});
      toast.setAttribute('role', 'status');
      document.body.append(toast);
    }
    toast.replaceChildren(Object.assign(document.createElement('span'), {textContent: text}));
    if (action) {
      const button = Object.assign(document.createElement('button'), {type: 'button', textContent: action.label});
      button.addEventListener('click', ({detail}) => {
        act(action.act, action.data);
        toast.classList.remove('shown');
        if (!detail) document.querySelector('#head .primary')?.focus();
      });
      toast.append(button);
      if (keyed) setTimeout(() => button.focus());  // what was clicked may be gone, and with it the focus
    }
    const composer = byId('composer')?.getBoundingClientRect();  // not over what is being typed
    toast.style.bottom = `${composer?.height ? innerHeight - composer.top + 16 : 24}px`;
    toast.classList.add('shown');
    clearTimeout(fading);
    const fade = () => {
      if (toast.contains(document.activeElement)) fading = setTimeout(fade, 1000);
      else toast.classList.remove('shown');
    };
    fading = setTimeout(fade, 1000 * seconds);
  }

  // --- What the server refused to take: Gradio would leave the page as it is, and say nothing
  const send = window.fetch.bind(window);
  window.fetch = async (...request) => {
    const reply = await send(...request);
    if (reply.status >= 400 && new URL(reply.url).pathname.includes('/gradio_api/')) {
      reply.clone().json().then(({error}) => say(`${error.message} ${error.action}`, null, 10)).catch(() => {});
    }
    return reply;
  };

  // --- The preview of a citation
  let previewed = null;
  function showPreview(chip) {
    if (!chip.dataset.title) return;
    let preview = byId('preview');
    if (!preview) {
      preview = Object.assign(document.createElement('div'), {id: 'preview'});
      preview.setAttribute('role', 'tooltip');
      document.body.append(preview);
    }
    const line = (kind, text) => text ? [Object.assign(document.createElement(kind), {textContent: text})] : [];
    const {title, section, quote, weak} = chip.dataset;
    preview.replaceChildren(...line('strong', title), ...line('small', section), ...line('q', quote), ...line('em', weak));
    preview.classList.add('shown');
    chip.setAttribute('aria-describedby', 'preview');
    previewed = chip;
    const at = chip.getBoundingClientRect(), size = preview.getBoundingClientRect();
    const below = at.bottom + size.height + 12 < innerHeight || at.top < size.height + 12;
    preview.style.top = `${below ? at.bottom + 6 : at.top - size.height - 6}px`;
    preview.style.left = `${Math.max(8, Math.min(at.left - 12, root.clientWidth - size.width - 8))}px`;
  }
  function hidePreview() {
    previewed?.removeAttribute('aria-describedby');
    previewed = null;
    byId('preview')?.classList.remove('shown');
  }
  const chipOf = (event) => event.target instanceof Element ? event.target.closest('.chip') : null;
  addEventListener('pointerover', (event) => {
    const chip = chipOf(event);
    if (chip && event.pointerType !== 'touch') showPreview(chip);
    else if (previewed && previewed !== document.activeElement && !event.target.closest?.('#preview')) hidePreview();
  });
  addEventListener('focusin', (event) => {
    const chip = chipOf(event);
    if (chip?.matches(':focus-visible')) showPreview(chip);
    else if (previewed) hidePreview();
  });

  // --- Clicks, changes, forms
  async function copy(button) {
    const text = button.dataset.text ?? button.closest('.code').querySelector('pre').textContent;
    await navigator.clipboard?.writeText(text);
    const label = button.textContent;
    if (label) button.textContent = button.dataset.copied;
    button.classList.add('done');
    setTimeout(() => { button.classList.remove('done'); if (label) button.textContent = label; }, 1500);
  }
  const doing = {
    copy,
    dialog: (button) => open(button.dataset.dialog),
    close: (button) => button.closest('dialog').close(),
    back: (button) => { byId('tab-chat-button').click(); go(button.dataset.to); },
    rename: (button) => {
      const {chat, title} = button.dataset, dialog = byId('rename');
      dialog.querySelector('form').dataset.chat = chat;
      for (const link of dialog.querySelectorAll('[data-export]')) {
        link.href = `${location.pathname.replace(/[/]$/, '')}/chat/${chat}/export?format=${link.dataset.export}`;
      }
      byId('title').value = title;
      open('rename').then(() => byId('title').select());
    },
    models: () => {
      if (!byId('sidebar').classList.contains('open')) byId('sidebar').querySelector('button').click();
      document.querySelector('.choices select')?.focus();
    },
  };
  function closeSidebar() {
    const sidebar = byId('sidebar');
    if (narrow.matches && sidebar.classList.contains('open')) sidebar.querySelector('button').click();
  }
  function choose(button) {  // shown at once: the next choice may be made before this one is answered
    for (const other of button.parentElement.children) other.setAttribute('aria-pressed', String(other === button));
    const pressed = button.closest('dialog').querySelectorAll('.segments [aria-pressed=true]');
    return Object.assign({}, ...[...pressed].map((each) => each.dataset));
  }
  addEventListener('click', (event) => {
    if (event.target.nodeName === 'DIALOG') return event.target.close();  // beside the dialog's content
    keyed = event.detail === 0;
    if (keyed && event.target.closest?.('#question button')) field()?.focus();  // another button takes its place
    const control = event.target.closest?.('[data-act], [data-do]');
    if (!control) return;
    event.preventDefault();
    if (control.dataset.do) return doing[control.dataset.do](control);
    hidePreview();
    if (['ask', 'retry', 'again', 'open'].includes(control.dataset.act)) atEnd = true;
    if (control.dataset.act === 'open') closeSidebar();
    const fields = control.matches('dialog .segments *') ? choose(control) : control.dataset;
    const pressed = control.getAttribute('aria-pressed') ?? '';
    act(control.dataset.act, {...fields, pressed, address: location.origin + location.pathname});
  });
  addEventListener('change', (event) => {
    const {name, value, type, checked, dataset} = event.target;
    if (event.target.closest('.radios')) {
      if (name === 'theme') { remember('theme', value); paint(); }
      else { setCookie('language', value); root.lang = value; act('language', {language: value}); }
    } else if (dataset?.change) {
      dataset.value = type === 'checkbox' ? (checked ? 'on' : '') : value;
      act(dataset.change, {name: dataset.name, value: dataset.value});
    }
  });
  let finding = 0;
  addEventListener('input', (event) => {
    if (event.target.id !== 'find') return;
    clearTimeout(finding);
    finding = setTimeout(() => act('find', {q: event.target.value}), 150);
  });
  addEventListener('submit', (event) => {
    const name = event.target.dataset?.form;
    if (!name) return;
    event.preventDefault();
    act(name, {...Object.fromEntries(new FormData(event.target)), ...event.target.dataset});
    event.target.reset();
    if (name === 'rename') event.target.closest('dialog').close();
  });

  // --- The keyboard
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((each) => each.offsetParent);
  addEventListener('keydown', (event) => {
    const typing = event.target.matches?.('input:not([type=radio], [type=checkbox]), textarea, select');
    if (event.key === 'Enter' && event.target === field()) atEnd = true;
    if (document.querySelector('dialog[open]') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape') {
      if (previewed) hidePreview();
      else if (visible('.editbar')[0]) act('edit');
      else visible('#question .stop-button')[0]?.click();
    } else if (event.key === 'ArrowUp' && event.target === field() && !field().value) {
      const edit = visible('.question [data-act=edit]').pop();
      if (edit) { event.preventDefault(); edit.click(); }
    } else if (event.key === '/' && !typing) {
      event.preventDefault();
      if (!field()?.offsetParent) byId('tab-chat-button').click();
      requestAnimationFrame(() => field()?.focus());
    } else if (event.key === '?' && !typing) {
      open('help');
    }
  });

  narrow.addEventListener('change', () => {
    const sidebar = byId('sidebar');
    if (sidebar?.classList.contains('open') === narrow.matches) sidebar.querySelector('button').click();
  });

  // --- What Python says to the page
  function speak(language) {
    root.lang = language;
    root.classList.remove('translating');
    settle();
    goOnWriting();
    if (!recall('seen')) open('landing');
  }
  function signal(text) {
    const {go: to, open: name, say: said, action, focus} = JSON.parse(text || '{}');
    if (focus) requestAnimationFrame(() => field()?.focus());
    if (to) go(to);
    if (name) open(name);
    if (said) say(said, action);
  }

  setCookie('offset', -new Date().getTimezoneOffset());  // minutes east of UTC: which day a chat belongs to
  return {connect, act, go, speak, signal, keepInView: (element) => growth.observe(element)};
})();
