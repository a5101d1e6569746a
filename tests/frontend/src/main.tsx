import { MsalProvider } from "@azure/msal-react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { initialize, msal } from "./auth";
import { consentResult } from "./consent-result";
import { Loading, MissingSettings } from "./notices";
import { Consent } from "./onboarding";
import { missingSettings } from "./settings";
import "./styles.css";
import "./controls.css";
import "./tasks.css";

const element = document.getElementById("root");
if (!element) {
  throw new Error("index.html has no #root");
}
const root = createRoot(element);

const consent = consentResult(window.location.search);

if (missingSettings.length > 0) {
  root.render(<MissingSettings names={missingSettings} />);
} else if (consent) {
  // A reload then shows the app, and the history does not contain the result.
  window.history.replaceState(null, "", window.location.pathname);
  root.render(<Consent result={consent} />);
} else {
  root.render(<Loading />);
  // Runs before the app is rendered: the result of a redirect decides which page is shown.
  const problem = await initialize();
  root.render(
    <StrictMode>
      <MsalProvider instance={msal}>
        <App problem={problem} />
      </MsalProvider>
    </StrictMode>,
  );
}
